"""Charts that compare designs: trade-offs with their Pareto front, the effect of a key, and ranked costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hermes_flow.metrics.figures import Figure
from hermes_flow.metrics.pareto import pareto_front
from hermes_flow.report.charts.bars import named_bars
from hermes_flow.report.charts.latency import axis_unit
from hermes_flow.report.charts.theme import BAD, COLOURS, GOOD, SOFT, WAIT, Spec, colour_scale, specification

_HEIGHT = 300
_VERDICTS = {True: ("SLO met", GOOD), False: ("SLO missed", BAD), None: ("no SLO", COLOURS[0])}


def trade_off(
    designs: Sequence[dict[str, Any]], x: Figure, y: Figure, describe: Sequence[str] = ()
) -> tuple[Spec | None, list[int]]:
    """Return the chart of two figures of all designs, and the indices of those on its Pareto front.

    Each design is a row with ``name``, ``met`` and the figures under their keys, and perhaps a short ``label``;
    ``describe`` names further entries that a pointer shows. The chart is None if fewer than two designs have both
    figures.
    """
    import altair as alt

    known = [
        index for index, row in enumerate(designs) if _number(row.get(x.key)) and _number(row.get(y.key))
    ]
    if len(known) < 2 or x.better is None or y.better is None:
        return None, []
    values = [(designs[index][x.key], designs[index][y.key]) for index in known]
    front = [known[index] for index in pareto_front(values, (x.better, y.better)).nonzero()[0]]
    x_axis, x_factor = _axis(x, [value for value, _ in values])
    y_axis, y_factor = _axis(y, [value for _, value in values])
    rows = [
        {
            "design": str(designs[index]["name"]),
            "label": str(designs[index].get("label", designs[index]["name"])),
            "verdict": _VERDICTS[designs[index]["met"]][0],
            "x": designs[index][x.key] * x_factor,
            "y": designs[index][y.key] * y_factor,
            "first": x.text(designs[index][x.key]),
            "second": y.text(designs[index][y.key]),
            **{key: str(designs[index][key]) for key in describe},
        }
        for index in known
    ]
    on_front = {str(designs[index]["name"]) for index in front}
    line = sorted((row for row in rows if row["design"] in on_front), key=lambda row: (row["x"], row["y"]))
    horizontal, vertical = alt.X("x:Q", **x_axis), alt.Y("y:Q", **y_axis)
    verdicts = [pair for pair in _VERDICTS.values() if any(row["verdict"] == pair[0] for row in rows)]
    colour = alt.Color(
        "verdict:N", scale=colour_scale([name for name, _ in verdicts], [c for _, c in verdicts])
    )
    tooltip = [
        alt.Tooltip("design:N"),
        *(alt.Tooltip(f"{_escaped(key)}:N", title=key) for key in describe),
        alt.Tooltip("first:N", title=x.title),
        alt.Tooltip("second:N", title=y.title),
    ]
    path = alt.Chart(alt.InlineData(values=line)).mark_line(
        color=SOFT,
        strokeDash=[5, 3],
        strokeWidth=1.4,
        interpolate="step-after" if x.better == "low" else "step-before",
    )
    points = alt.Chart(alt.InlineData(values=rows)).mark_point(filled=True, size=65, opacity=0.85)
    layers = [
        path.encode(x=horizontal, y=vertical),
        points.encode(x=horizontal, y=vertical, color=colour, tooltip=tooltip),
    ]
    if len(line) <= 12:
        text = alt.Chart(alt.InlineData(values=line)).mark_text(align="left", dx=7, dy=-6, fontSize=11)
        layers.append(text.encode(x=horizontal, y=vertical, text="label:N"))
    return specification(alt.layer(*layers).properties(width="container", height=_HEIGHT)), front


def effect(rows: Sequence[tuple[Any, float]], key: str, figure: Figure) -> Spec:
    """Return the chart of a figure against the values of one key: a point per job, and their mean per value."""
    import altair as alt

    numeric = all(_number(value) for value, _ in rows)
    axis, factor = _axis(figure, [value for _, value in rows])
    data = [
        {"key": value if numeric else str(value), "y": y * factor, "text": figure.text(y)}
        for value, y in rows
    ]
    order = list(dict.fromkeys(str(value) for value, _ in rows))
    x = (
        alt.X("key:Q", title=key, scale=alt.Scale(zero=False))
        if numeric
        else alt.X("key:N", title=key, sort=order, axis=alt.Axis(labelAngle=-25))
    )
    base = alt.Chart(alt.InlineData(values=data))
    points = base.mark_point(filled=True, size=30, opacity=0.45, color=COLOURS[0])
    y = alt.Y("y:Q", **axis)
    means = base.mark_line(color=COLOURS[2], strokeWidth=2, point={"color": COLOURS[2], "size": 45})
    mean = alt.Y("mean(y):Q", **axis)
    layers = [
        points.encode(
            x=x,
            y=y,
            tooltip=[
                alt.Tooltip("key:Q" if numeric else "key:N", title=key),
                alt.Tooltip("text:N", title=figure.title),
            ],
        ),
        means.encode(x=x, y=mean),
    ]
    return specification(alt.layer(*layers).properties(width="container", height=190))


def ranked_bars(
    names: Sequence[str], values: Sequence[float], figure: Figure, marked: Sequence[bool]
) -> Spec:
    """Return the chart of one figure per design as bars, in the order of ``names``; ``marked`` ones stand out."""
    import altair as alt

    axis, factor = _axis(figure, values)
    axis["axis"] = alt.Axis(grid=False, tickCount=6, format="%" if figure.unit == "share" else "")
    rows = [
        {"name": name, "x": value * factor, "text": figure.text(value), "marked": mark}
        for name, value, mark in zip(names, values, marked, strict=True)
    ]
    colour = alt.Color(
        "marked:N", scale=alt.Scale(domain=[True, False], range=[COLOURS[0], WAIT]), legend=None
    )
    tooltip = [alt.Tooltip("name:N", title="design"), alt.Tooltip("text:N", title=figure.title)]
    return named_bars(rows, alt.X("x:Q", **axis), colour, tooltip)


def _axis(figure: Figure, values: Sequence[float]) -> tuple[dict[str, Any], float]:
    """Return the settings of a figure's axis, and the factor from its values to the axis."""
    import altair as alt

    largest, smallest = max(values), min(values)
    unit, factor = axis_unit(largest) if figure.unit == "s" else ("", 1.0)
    title = f"{figure.title} ({unit})" if unit else figure.title
    wide = smallest > 0 and largest / smallest > 50
    scale = alt.Scale(type="log") if wide else alt.Scale(zero=largest < 4 * smallest or smallest <= 0)
    settings: dict[str, Any] = {"title": title, "scale": scale}
    if figure.unit == "share":
        settings["axis"] = alt.Axis(format="%")
    return settings, factor


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _escaped(key: str) -> str:
    """Return a key as Vega-Lite takes it for one name, and not for a path into an object."""
    return (
        key.replace("\\", "\\\\")
        .replace(".", "\\.")
        .replace("[", "\\[")
        .replace("]", "\\]")
        .replace(":", "\\:")
    )
