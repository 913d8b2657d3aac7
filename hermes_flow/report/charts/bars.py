"""Draws horizontal bars with their names above them, so that long names leave room for the bars on a phone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hermes_flow.report.charts.theme import Spec, specification

if TYPE_CHECKING:
    import altair as alt

_ROW, _BAR, _SHIFT = 36, 12, 7


def named_bars(
    rows: Sequence[dict[str, Any]], x: alt.X, colour: alt.Color | alt.Value, tooltip: Sequence[alt.Tooltip]
) -> Spec:
    """Return the chart of ``rows`` in their order, each with the entries ``name``, ``x`` and the ``text`` at its end.

    Names are unique.
    """
    import altair as alt

    order = [row["name"] for row in rows]
    base = alt.Chart(alt.InlineData(values=list(rows))).encode(y=alt.Y("name:N", sort=order, axis=None))
    bars = base.mark_bar(height=_BAR, yOffset=_SHIFT).encode(x=x, color=colour, tooltip=list(tooltip))
    values = base.mark_text(align="left", dx=4, dy=_SHIFT, fontSize=11).encode(x=x, text="text:N")
    names = base.mark_text(align="left", dy=-_SHIFT - 1, fontSize=12).encode(x=alt.value(0), text="name:N")
    return specification((bars + values + names).properties(width="container", height=_ROW * len(rows)))
