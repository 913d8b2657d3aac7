"""Cumulative distributions as an SVG picture, drawn in the colours of the page around it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from math import floor, log10
from typing import TYPE_CHECKING

from hermes_flow.metrics.number_text import duration

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WIDTH, HEIGHT = 300, 210
LEFT, RIGHT, TOP, BOTTOM = 38, 10, 26, 30
_POINTS = 160  # of a curve, whatever the number of values
_CUT = 99.5  # percentile beyond which the picture ends, so that one slow request does not squeeze the rest

STYLE = """
.cdf text { font-size: 11px; fill: var(--soft) }
.cdf .name { font-size: 12px; font-weight: 600; fill: var(--text) }
.cdf .grid { stroke: var(--line); stroke-width: 1 }
.cdf .curve { fill: none; stroke-width: 1.8; stroke-linejoin: round }
.cdf .mark { stroke: none }
.cdf .mean { stroke-width: 1.2; stroke-dasharray: 4 3 }
"""


@dataclass(frozen=True, slots=True)
class Curve:
    """One line: its name, its CSS colour, and a value in seconds per request; none if only statistics are known."""

    name: str
    colour: str
    seconds: NDArray[np.float64] | None = None
    figures: dict[str, float] = field(default_factory=dict)  # mean, p50, p90, … in seconds


def cdf(title: str, curves: Sequence[Curve]) -> str:
    """Return the SVG of the curves' distributions; statistics are dots for percentiles and a line for the mean."""
    import numpy as np

    levels = np.concatenate(
        [np.linspace(0.0, _CUT, _POINTS, endpoint=False), np.linspace(_CUT, 100.0, 8)]
    )  # percent
    lines = [
        (curve, np.percentile(known, levels))
        for curve in curves
        if curve.seconds is not None and len(known := curve.seconds[~np.isnan(curve.seconds)])
    ]
    ends = [float(np.interp(_CUT, levels, values)) for _, values in lines]
    ends += [max(curve.figures.values()) for curve in curves if curve.figures]
    if not ends:
        return ""
    step = _step(1.04 * max(ends))
    end = 1.04 * max(ends)
    parts = [
        f'<svg class="cdf" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img">',
        f"<title>{escape(title)}: {escape(', '.join(curve.name for curve in curves))}</title>",
        f'<text class="name" x="{LEFT}" y="14">{escape(title)}</text>',
        *_grid(end, step),
    ]
    for curve, values in lines:
        inside = [
            (x, y) for x, y in zip(values.tolist(), (levels / 100).tolist(), strict=True) if x <= end
        ] or [(0.0, 0.0)]
        points = "L".join(f"{_x(x, end):.1f} {_y(y):.1f}" for x, y in inside)
        parts.append(f'<path class="curve" stroke="{curve.colour}" d="M{points}"/>')
    for curve in curves:
        parts.extend(_figures(curve, end))
    return "".join([*parts, "</svg>"])


def _figures(curve: Curve, end: float) -> Iterator[str]:
    for statistic, value in curve.figures.items():
        label = f"<title>{escape(curve.name)}: {statistic} {duration(value)}</title>"
        at = f"{_x(value, end):.1f}"
        if statistic == "mean":
            line = f'd="M{at} {_y(0):.1f}V{_y(1):.1f}"'
            yield f'<path class="mean" stroke="{curve.colour}" {line}>{label}</path>'
        else:
            place = f'cx="{at}" cy="{_y(float(statistic[1:]) / 100):.1f}" r="4"'
            yield f'<circle class="mark" fill="{curve.colour}" {place}>{label}</circle>'


def _grid(end: float, step: float) -> Iterator[str]:
    for share in (0.0, 0.5, 0.9, 1.0):
        y = _y(share)
        yield f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>'
        yield f'<text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{100 * share:.0f} %</text>'
    for count in range(int(end / step) + 1):
        x = _x(count * step, end)
        yield f'<path class="grid" d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}"/>'
        anchor = "start" if count == 0 else "end" if x > WIDTH - RIGHT - 18 else "middle"
        text = "0" if count == 0 else duration(count * step)
        yield f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="{anchor}">{text}</text>'


def _step(end: float) -> float:
    """Return the distance of the grid's lines: 1, 2 or 5 times a power of ten, three to six of them."""
    rough = end / 4
    power: float = 10.0 ** floor(log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)


def _x(value: float, end: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * value / end


def _y(share: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * share
