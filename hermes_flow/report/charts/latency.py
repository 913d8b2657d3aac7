"""Distributions of latencies: one chart with a curve per group of requests, and the bounds of an SLO on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hermes_flow.metrics.number_text import duration
from hermes_flow.report.charts.theme import BACK, BAD, GOOD, Spec, colour_scale, specification

if TYPE_CHECKING:
    import altair as alt
    import numpy as np
    from numpy.typing import NDArray

_POINTS = 160  # of a curve, whatever the number of values
_CUT = 99.5  # percentile beyond which the chart ends, so that one slow request does not squeeze the rest
_HEIGHT = 220


@dataclass(frozen=True, slots=True)
class Curve:
    """A distribution: a value in seconds per request, or, where only statistics are known, these in seconds."""

    name: str
    seconds: NDArray[np.float64] | None = None
    figures: Mapping[str, float] = field(default_factory=dict)  # mean, p50, p90, …

    def known(self) -> NDArray[np.float64] | None:
        """Return the values without NaN; None if there are none."""
        import numpy as np

        if self.seconds is None:
            return None
        values = self.seconds[~np.isnan(self.seconds)]
        return values if len(values) else None


@dataclass(frozen=True, slots=True)
class Bound:
    """A bound of an SLO on a percentile of the latency."""

    percentile: float
    limit_s: float
    met: bool


def distribution(curves: Sequence[Curve], bounds: Sequence[Bound] = ()) -> Spec | None:
    """Return the chart of cumulative distributions, or None if nothing is known.

    Statistics are points at their percentile, and a dashed line for a mean. A bound is a triangle at its limit and
    its percentile: a curve that passes above and to the left of it meets the bound.
    """
    import altair as alt
    import numpy as np

    levels = np.concatenate([np.linspace(0.0, _CUT, _POINTS, endpoint=False), np.linspace(_CUT, 100.0, 8)])
    lines = {
        curve.name: np.percentile(known, levels) for curve in curves if (known := curve.known()) is not None
    }
    ends = [float(np.interp(_CUT, levels, values)) for values in lines.values()]
    ends += [max(curve.figures.values()) for curve in curves if curve.figures]
    if not ends or max(ends) <= 0:
        return None
    end = 1.04 * max(ends)
    unit, factor = axis_unit(end)
    rows = [
        {"curve": name, "x": x * factor, "share": level / 100}
        for name, values in lines.items()
        for x, level in zip(values.tolist(), levels.tolist(), strict=True)
        if x <= end
    ]
    x = alt.X("x:Q", title=unit, scale=alt.Scale(domain=[0, end * factor], nice=False))
    y = alt.Y(
        "share:Q", title="share of requests", axis=alt.Axis(format="%", values=[0, 0.25, 0.5, 0.75, 0.9, 1])
    )
    names = [curve.name for curve in curves]
    legend = alt.Legend() if len(names) > 1 else None
    colour = alt.Color("curve:N", scale=colour_scale(names), legend=legend)
    base = alt.Chart(alt.InlineData(values=rows))
    layers = [base.mark_line(strokeWidth=2, clip=True).encode(x=x, y=y, color=colour, order="share:Q")]
    layers += _statistics(curves, factor, x, y, colour)
    layers += _bounds([bound for bound in bounds if bound.limit_s <= end], factor, x, y)
    return specification(alt.layer(*layers).properties(width="container", height=_HEIGHT))


def axis_unit(end_s: float) -> tuple[str, float]:
    """Return the unit that suits an axis from 0 to ``end_s``, and how many of it a second has."""
    for least, unit, factor in (
        (7200.0, "h", 1 / 3600),
        (300.0, "min", 1 / 60),
        (1.5, "s", 1.0),
        (1.5e-3, "ms", 1e3),
    ):
        if end_s >= least:
            return unit, factor
    return "µs", 1e6


def _statistics(
    curves: Sequence[Curve], factor: float, x: alt.X, y: alt.Y, colour: alt.Color
) -> list[alt.Chart]:
    import altair as alt

    rows = [
        {
            "curve": curve.name,
            "statistic": statistic,
            "x": value * factor,
            "value": duration(value),
            "share": 0.0 if statistic == "mean" else float(statistic[1:]) / 100,
            "top": 1.0,
        }
        for curve in curves
        for statistic, value in curve.figures.items()
    ]
    if not rows:
        return []
    tooltip = ["curve:N", "statistic:N", "value:N"]
    means = alt.Chart(alt.InlineData(values=[row for row in rows if row["statistic"] == "mean"]))
    points = alt.Chart(alt.InlineData(values=[row for row in rows if row["statistic"] != "mean"]))
    dashed = means.mark_rule(strokeDash=[4, 3]).encode(x=x, y=y, y2="top:Q", color=colour, tooltip=tooltip)
    return [dashed, points.mark_point(filled=True, size=60).encode(x=x, y=y, color=colour, tooltip=tooltip)]


def _bounds(bounds: Sequence[Bound], factor: float, x: alt.X, y: alt.Y) -> list[alt.Chart]:
    import altair as alt

    layers = []
    for met, colour in ((True, GOOD), (False, BAD)):
        rows = [
            {
                "x": bound.limit_s * factor,
                "share": bound.percentile / 100,
                "bound": f"p{bound.percentile:g} ≤ {duration(bound.limit_s)}",
                "verdict": "met" if met else "missed",
            }
            for bound in bounds
            if bound.met == met
        ]
        if rows:
            base = alt.Chart(alt.InlineData(values=rows))
            mark = base.mark_point(filled=True, shape="triangle-left", size=110, opacity=1, color=colour)
            place: dict[str, Any] = {"align": "left", "dx": 8, "dy": 4, "fontSize": 11}
            text = base.mark_text(**place, color=colour)
            around = base.mark_text(
                **place, stroke=BACK, strokeWidth=4, opacity=0.85
            )  # hides the curve behind it
            layers += [
                mark.encode(x=x, y=y, tooltip=["bound:N", "verdict:N"]),
                around.encode(x=x, y=y, text="bound:N"),
                text.encode(x=x, y=y, text="bound:N"),
            ]
    return layers
