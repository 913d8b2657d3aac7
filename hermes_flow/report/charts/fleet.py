"""Charts how many clients of a pool are in each state over the time of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hermes_flow.report.charts.theme import COLOURS, SOFT, Spec, colour_scale, specification

if TYPE_CHECKING:
    import polars as pl

_COLOURS = {
    "up": COLOURS[0],
    "starting": COLOURS[1],
    "draining": COLOURS[2],
    "down": COLOURS[3],
    "taken": SOFT,
}
_HEIGHT = 170


def clients_by_state(stretches: pl.DataFrame) -> Spec:
    """Return the chart of one pool from its rows of ``fleet.parquet``: a stack of states, one step per change."""
    import altair as alt

    present = [state for state in _COLOURS if state in set(stretches["state"])]
    rows = [
        {"t": round(at, 6), "state": state, "clients": count}
        for state in present
        for at, count in _steps(stretches, state)
    ]
    chart = alt.Chart(alt.InlineData(values=rows)).mark_area(interpolate="step-after")
    chart = chart.encode(
        x=alt.X("t:Q", title="s of simulated time", scale=alt.Scale(nice=False)),
        y=alt.Y("clients:Q", title="clients", axis=alt.Axis(tickMinStep=1), stack="zero"),
        color=alt.Color("state:N", scale=colour_scale(present, [_COLOURS[state] for state in present])),
        order=alt.Order("order:Q"),
        tooltip=["state:N", "clients:Q", alt.Tooltip("t:Q", title="from")],
    ).transform_calculate(order=f"indexof({present!r}, datum.state)")
    return specification(chart.properties(width="container", height=_HEIGHT))


def _steps(stretches: pl.DataFrame, state: str) -> list[tuple[float, int]]:
    """Return how many clients are in a state from each instant on at which any client changes its own."""
    times = sorted({*stretches["begin_s"], *stretches["end_s"]})
    own = stretches.filter(stretches["state"] == state)
    change: dict[float, int] = dict.fromkeys(times, 0)
    for begin, end in zip(own["begin_s"], own["end_s"], strict=True):
        change[begin] += 1
        change[end] -= 1
    counts, count = [], 0
    for at in times:
        count += change[at]
        counts.append((at, count))
    counts[-1] = (times[-1], counts[-2][1] if len(counts) > 1 else 0)  # the last level lasts to the end
    return counts
