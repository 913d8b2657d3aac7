"""Charts the load over the time of a run: rates, tasks in service and waiting, KV in use, and clients at work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hermes_flow.metrics.number_text import percent
from hermes_flow.report.charts.bars import named_bars
from hermes_flow.report.charts.theme import COLOURS, SOFT, Spec, colour_scale, specification

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

    from hermes_flow.metrics.levels import Bins

_HEIGHT = 170
_ROW = 16


def lines_over_time(
    times_s: NDArray[np.float64],
    lines: Mapping[str, NDArray[np.float64]],
    title: str,
    *,
    percent: bool = False,
    names: Sequence[str] = (),
) -> Spec:
    """Return the chart of one or several lines over simulated time; ``title`` is that of the y axis.

    A line has the colour of its place in ``names`` (by default in ``lines``).
    """
    import altair as alt

    rows = [
        {"line": name, "t": round(t, 6), "y": _rounded(y)}
        for name, values in lines.items()
        for t, y in zip(times_s.tolist(), values.tolist(), strict=True)
    ]
    everything = list(names) or list(lines)
    scale = colour_scale(list(lines), [COLOURS[everything.index(name) % len(COLOURS)] for name in lines])
    axis = alt.Axis(format="%") if percent else alt.Axis()
    legend = alt.Legend() if len(lines) > 1 else None
    chart = alt.Chart(alt.InlineData(values=rows)).mark_line(strokeWidth=1.6, interpolate="monotone")
    chart = chart.encode(
        x=alt.X("t:Q", title="s of simulated time", scale=alt.Scale(nice=False)),
        y=alt.Y("y:Q", title=title, axis=axis, scale=alt.Scale(zero=True)),
        color=alt.Color("line:N", scale=scale, legend=legend),
    )
    return specification(chart.properties(width="container", height=_HEIGHT))


def utilization(clients: pl.DataFrame, most: int = 64) -> Spec:
    """Return the chart of how busy clients were, a bar for each; with more than ``most``, a bar for each pool."""
    import altair as alt
    import polars as pl

    known = clients.filter(pl.col("busy_fraction").is_not_null())
    if len(known) > most:
        known = known.group_by("pool", maintain_order=True).agg(pl.col("busy_fraction").mean())
        known = known.with_columns(client=pl.col("pool"))
    rows = known.select("client", "pool", "busy_fraction").to_dicts()
    pools = list(dict.fromkeys(row["pool"] for row in rows))
    base = alt.Chart(alt.InlineData(values=rows)).encode(
        y=alt.Y("client:N", sort=[row["client"] for row in rows], title=None),
        x=alt.X("busy_fraction:Q", title="busy", axis=alt.Axis(format="%"), scale=alt.Scale(domain=[0, 1])),
    )
    bars = base.mark_bar(height=10).encode(
        color=alt.Color("pool:N", scale=colour_scale(pools), legend=None),
        tooltip=["client:N", alt.Tooltip("busy_fraction:Q", format=".1%")],
    )
    text = base.mark_text(align="left", dx=4, fontSize=11, color=SOFT)
    labels = text.encode(text=alt.Text("busy_fraction:Q", format=".0%"))
    return specification((bars + labels).properties(width="container", height=_ROW * len(rows)))


def share_bars(shares: Sequence[tuple[str, float]]) -> Spec:
    """Return the chart of named shares as bars, in their order."""
    import altair as alt

    rows = [{"name": name, "x": share, "text": percent(share)} for name, share in shares]
    axis = alt.Axis(format="%", grid=False, tickCount=5)
    x = alt.X("x:Q", title="share of the time", axis=axis, scale=alt.Scale(domain=[0, 1]))
    tooltip = [alt.Tooltip("name:N", title="cause"), alt.Tooltip("text:N", title="share")]
    return named_bars(rows, x, alt.value(COLOURS[2]), tooltip)


def client_rows(parts: Bins, clients: Mapping[str, NDArray[np.float64]]) -> Spec:
    """Return the time-lines of clients, a row each; the stronger the colour, the more tasks are in service.

    ``clients`` has, for each client, the mean number of tasks in service in each of the ``parts``. The colour of a
    pool is strongest at the most tasks that one of its clients serves in any part.
    """
    import altair as alt
    import numpy as np

    pools = list(dict.fromkeys(name.rpartition("/")[0] for name in clients))
    most = {
        pool: max(
            float(np.max(values)) for name, values in clients.items() if name.rpartition("/")[0] == pool
        )
        for pool in pools
    }
    rows: list[dict[str, Any]] = []
    for name, values in clients.items():
        pool = name.rpartition("/")[0]
        for index in np.flatnonzero(values > 1e-9).tolist():
            level = float(values[index])
            rows.append(
                {
                    "client": name,
                    "pool": pool,
                    "from": round(float(parts.edges_s[index]), 6),
                    "to": round(float(parts.edges_s[index + 1]), 6),
                    "tasks": _rounded(level),
                    "strength": _rounded(0.12 + 0.88 * level / most[pool]),
                }
            )
    chart = alt.Chart(alt.InlineData(values=rows)).mark_rect(height=11)
    chart = chart.encode(
        x=alt.X("from:Q", title="s of simulated time", scale=alt.Scale(nice=False)),
        x2="to:Q",
        y=alt.Y("client:N", sort=list(clients), title=None),
        color=alt.Color("pool:N", scale=colour_scale(pools), legend=None),
        opacity=alt.Opacity("strength:Q", scale=alt.Scale(domain=[0, 1], range=[0, 1]), legend=None),
        tooltip=["client:N", alt.Tooltip("tasks:Q", title="tasks in service"), "from:Q", "to:Q"],
    )
    return specification(chart.properties(width="container", height=_ROW * len(clients)))


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
