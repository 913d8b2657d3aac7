"""Charts of studies: figures against the load, a panel per case and figure, and a line per design."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hermes_flow.report.charts.theme import colour_scale, specification

if TYPE_CHECKING:
    import altair as alt
    import polars as pl

    from hermes_flow.report.charts.theme import Spec


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel: rows with ``line``, ``x`` and ``y``; ``log`` draws y on a logarithmic scale, else up to ``top``."""

    title: str
    rows: Sequence[dict[str, Any]]
    x_title: str
    y_title: str
    log: bool = False
    bars: bool = False
    top: float | None = None


def rows_of(sweep: pl.DataFrame, line: str, x: str, y: str, scale: float = 1.0) -> list[dict[str, Any]]:
    """Return the jobs that have a figure ``y`` as points, ``y`` times ``scale``."""
    return [
        {"line": str(name), "x": at, "y": value * scale}
        for name, at, value in sweep.select(line, x, y).rows()
        if value is not None
    ]


def grid(panels: Sequence[Panel], columns: int = 2, width: int = 340, height: int = 210) -> Spec:
    """Return panels in rows of ``columns`` as a specification; every line has the same colour in all of them."""
    import altair as alt

    names = list(dict.fromkeys(row["line"] for panel in panels for row in panel.rows))
    drawn = [
        _drawn(panel, names, legend=place == 0, width=width, height=height)
        for place, panel in enumerate(panels)
    ]
    rows = [
        alt.hconcat(*drawn[first : first + columns], spacing=36) for first in range(0, len(drawn), columns)
    ]
    return specification(alt.vconcat(*rows, spacing=30) if len(rows) > 1 else rows[0])


def _drawn(panel: Panel, names: Sequence[str], *, legend: bool, width: int, height: int) -> alt.Chart:
    import altair as alt

    labels = alt.Axis(labelAngle=0, labelOverlap=False, labelExpr="split(datum.label, ' on ')")
    shown = alt.Legend(orient="top", columns=3, columnPadding=30, title=None) if legend else None
    base = alt.Chart(alt.InlineData(values=list(panel.rows)))
    linear = alt.Scale(zero=True) if panel.top is None else alt.Scale(domain=[0, panel.top])
    scale = alt.Scale(type="log") if panel.log else linear
    y = alt.Y("y:Q", title=panel.y_title, scale=scale)
    colour = alt.Color("line:N", scale=colour_scale(names), legend=shown)
    if panel.bars:
        # A bar has no foot on a logarithmic scale.
        marked = (base.mark_point(filled=True, size=70, opacity=1) if panel.log else base.mark_bar()).encode(
            x=alt.X("x:N", title=panel.x_title, sort=None, axis=labels),
            xOffset=alt.XOffset("line:N", sort=list(names)),
            y=y,
            color=colour,
        )
    else:
        marked = base.mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=28)).encode(
            x=alt.X("x:Q", title=panel.x_title, scale=alt.Scale(zero=False)), y=y, color=colour
        )
    return marked.properties(width=width, height=height, title=panel.title)
