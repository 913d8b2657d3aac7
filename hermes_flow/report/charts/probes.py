"""The simulations of a capacity search as points: the value that was tried against its verdict, a row per seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hermes_flow.metrics.number_text import percent
from hermes_flow.report.charts.theme import BAD, GOOD, SOFT, Spec, colour_scale, specification

if TYPE_CHECKING:
    import polars as pl

_VERDICTS = {"met": GOOD, "met, but the backlog grows": GOOD, "missed": BAD}


def probe_points(probes: pl.DataFrame, over: str, answer: float | None) -> Spec:
    """Return the chart of all probes; ``answer`` is the value that the search returned."""
    import altair as alt

    rows = [
        {
            "value": row["value"],
            "seed": _row_name(row["seed"], row.get("step_times", 1.0)),
            "verdict": "missed"
            if not row["met"]
            else "met"
            if row["sustained"]
            else "met, but the backlog grows",
            "missed": row["problem"] or row["failing"] or "",
            "filled": bool(row["sustained"]) or not row["met"],
        }
        for row in probes.iter_rows(named=True)
    ]
    seeds = list(dict.fromkeys(row["seed"] for row in rows))
    names = [name for name in _VERDICTS if any(row["verdict"] == name for row in rows)]
    scale = colour_scale(names, [_VERDICTS[name] for name in names])
    points = alt.Chart(alt.InlineData(values=rows)).mark_point(size=70, strokeWidth=2, opacity=1)
    layers: list[alt.Chart] = [
        points.encode(
            x=alt.X("value:Q", title=over, scale=alt.Scale(zero=False)),
            y=alt.Y("seed:N", title=None, sort=seeds),
            color=alt.Color("verdict:N", scale=scale),
            fillOpacity=alt.condition("datum.filled", alt.value(1), alt.value(0)),
            fill=alt.Fill("verdict:N", scale=scale, legend=None),
            tooltip=["value:Q", "seed:N", "verdict:N", "missed:N"],
        )
    ]
    if answer is not None:
        line = alt.Chart(alt.InlineData(values=[{"value": answer}])).mark_rule(color=SOFT, strokeDash=[4, 3])
        layers.append(line.encode(x="value:Q"))
    return specification(alt.layer(*layers).properties(width="container", height=34 * len(seeds)))


def _row_name(seed: int, step_times: float) -> str:
    return f"seed {seed}" if step_times == 1.0 else f"seed {seed}, steps {percent(step_times)}"
