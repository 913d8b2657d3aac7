"""The look that all charts share: colours as CSS variables, fonts, grid lines, and the width of the page."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import altair as alt

Spec: TypeAlias = "dict[str, Any]"

COLOURS = tuple(f"var(--c{number})" for number in range(1, 11))
WAIT, MOVE, GOOD, BAD = "var(--wait)", "var(--move)", "var(--good)", "var(--bad)"
BACK, TEXT, SOFT, LINE = "var(--back)", "var(--text)", "var(--soft)", "var(--line)"
FONT = 'system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif'

_CONFIG: Spec = {
    "background": "transparent",
    "font": FONT,
    "view": {"stroke": None},
    "axis": {
        "labelColor": SOFT,
        "titleColor": SOFT,
        "titleFontWeight": "normal",
        "gridColor": LINE,
        "domainColor": LINE,
        "tickColor": LINE,
        "labelFontSize": 11,
        "titleFontSize": 12,
        "labelLimit": 220,
    },
    "axisX": {"labelOverlap": "greedy", "labelSeparation": 8},
    "legend": {
        "labelColor": TEXT,
        "titleColor": SOFT,
        "orient": "top",
        "title": None,
        "labelFontSize": 12,
        "labelLimit": 260,
        "columns": 4,
        "symbolLimit": 0,
    },
    "title": {"color": TEXT, "fontSize": 13, "anchor": "start"},
    "header": {"labelColor": TEXT, "titleColor": SOFT},
    "text": {"color": TEXT},
    "range": {"category": list(COLOURS)},
    "rule": {"color": SOFT},
}


def colours() -> str:
    """Return the style sheet with the value of every colour, in the light and in the dark scheme."""
    return files("hermes_flow.report.charts").joinpath("colours.css").read_text(encoding="utf-8")


def colour_scale(names: Sequence[str], colours: Sequence[str] = COLOURS) -> alt.Scale:
    """Return a scale that gives each name its colour; after the last colour it begins anew."""
    import altair as alt

    return alt.Scale(domain=list(names), range=[colours[index % len(colours)] for index in range(len(names))])


def specification(chart: Any) -> Spec:
    """Return an Altair chart as a Vega-Lite specification. Raises an error of Altair if the chart is not valid."""
    spec: Spec = chart.to_dict()
    spec.pop("config", None)
    return spec


def themed(spec: Spec) -> Spec:
    """Return the specification with the shared look."""
    return {
        **spec,
        "config": {**_CONFIG, **spec.get("config", {})},
        "autosize": {"type": "fit-x", "contains": "padding"},
    }
