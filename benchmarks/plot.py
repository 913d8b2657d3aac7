"""Line plots as SVG: panels side by side on a card that follows the page's light or dark scheme."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import log

WIDTH, HEIGHT, MARGIN = 920, 470, 28
PLOT_TOP, PLOT_BOTTOM, PLOT_LEFT, GAP = 112, 362, 84, 76
X_STEP = 5

STYLE = """
text { font: 13px system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif; fill: #57606a }
.card { fill: #ffffff; stroke: #d0d7de }
.title { font-size: 20px; font-weight: 600; fill: #1f2328 }
.panel { font-weight: 600; fill: #1f2328 }
.grid { stroke: #d8dee4 }
.bound { stroke: #57606a; stroke-width: 1.5; stroke-dasharray: 6 4 }
.bound-text { font-weight: 600; font-size: 12px }
.line { fill: none; stroke-width: 2.5; stroke-linejoin: round }
.missed { fill: #ffffff }
.a { stroke: #0b62b8 } .a.met { fill: #0b62b8 }
.b { stroke: #d55e00 } .b.met { fill: #d55e00 }
.c { stroke: #008f6b } .c.met { fill: #008f6b }
@media (prefers-color-scheme: dark) {
  text { fill: #9198a1 }
  .card { fill: #0d1117; stroke: #3d444d }
  .title, .panel { fill: #f0f6fc }
  .grid { stroke: #2a313c }
  .bound { stroke: #9198a1 }
  .missed { fill: #0d1117 }
  .a { stroke: #58a6ff } .a.met { fill: #58a6ff }
  .b { stroke: #f0883e } .b.met { fill: #f0883e }
  .c { stroke: #3fc79a } .c.met { fill: #3fc79a }
}
"""


@dataclass(frozen=True, slots=True)
class Point:
    """One simulation: x, y, and whether it met the SLO."""

    x: float
    y: float
    met: bool


@dataclass(frozen=True, slots=True)
class Line:
    """The points of one deployment, from left to right."""

    name: str
    points: Sequence[Point]


@dataclass(frozen=True, slots=True)
class Panel:
    """One plot: x linear, y logarithmic within ``y_range`` (what is outside is cut off), and an SLO bound."""

    title: str
    lines: Sequence[Line]
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    ticks: Mapping[float, str]
    bound: float


def picture(title: str, subtitle: str, panels: Sequence[Panel], names: Mapping[str, str]) -> str:
    """Return the SVG; ``names`` has the legend's text for each line."""
    width = (WIDTH - PLOT_LEFT - MARGIN - GAP * (len(panels) - 1)) / len(panels)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<desc>{escape('. '.join(names.values()))}.</desc>",
        f"<style>{STYLE}</style>",
        f'<rect class="card" x=".5" y=".5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="12"/>',
        _text(MARGIN, 42, title, "title"),
        _text(MARGIN, 66, subtitle),
    ]
    for index, panel in enumerate(panels):
        left = PLOT_LEFT + index * (width + GAP)
        parts.extend(_Axes(panel, left, width, f"clip{index}").elements())
    slot = (WIDTH - 2 * MARGIN) / len(names)
    for index, (name, text) in enumerate(names.items()):
        style = _style(panels[0], name)
        at, y = MARGIN + index * slot, HEIGHT - 28
        parts.append(f'<path class="line {style}" d="M{at:.1f} {y}h24"/>')
        parts.append(f'<circle class="met {style}" cx="{at + 12:.1f}" cy="{y}" r="4"/>')
        parts.append(_text(at + 32, y + 4, text))
    return "\n".join([*parts, "</svg>"]) + "\n"


class _Axes:
    def __init__(self, panel: Panel, left: float, width: float, clip: str) -> None:
        self.panel = panel
        self.left = left
        self.width = width
        self.clip = clip

    def x(self, value: float) -> float:
        low, high = self.panel.x_range
        return self.left + self.width * (value - low) / (high - low)

    def y(self, value: float) -> float:
        low, high = self.panel.y_range
        return PLOT_BOTTOM - (PLOT_BOTTOM - PLOT_TOP) * log(value / low) / log(high / low)

    def elements(self) -> Iterator[str]:
        """Yield grid, bound, lines and points."""
        panel, left, right = self.panel, self.left, self.left + self.width
        yield _text(left, PLOT_TOP - 14, panel.title, "panel")
        for value, name in panel.ticks.items():
            yield f'<path class="grid" d="M{left:.1f} {self.y(value):.1f}H{right:.1f}"/>'
            yield _text(left - 8, self.y(value) + 4, name, anchor="end")
        low, high = panel.x_range
        for value in range(int(low), int(high) + 1, X_STEP):
            yield _text(self.x(value), PLOT_BOTTOM + 22, f"{value}", anchor="middle")
        yield _text((left + right) / 2, PLOT_BOTTOM + 44, "requests per second", anchor="middle")
        yield f'<path class="bound" d="M{left:.1f} {self.y(panel.bound):.1f}H{right:.1f}"/>'
        yield _text(left + 6, self.y(panel.bound) - 7, "SLO", "bound-text")
        # Points on the frame are not to be halved.
        frame = (
            f'x="{left:.1f}" y="{PLOT_TOP}" width="{self.width + 6:.1f}" height="{PLOT_BOTTOM - PLOT_TOP}"'
        )
        yield f'<clipPath id="{self.clip}"><rect {frame}/></clipPath>'
        yield f'<g clip-path="url(#{self.clip})">'
        for line in panel.lines:
            style = _style(panel, line.name)
            spots = [(self.x(point.x), self.y(point.y), point.met) for point in line.points]
            yield f'<path class="line {style}" d="M{"L".join(f"{x:.1f} {y:.1f}" for x, y, _ in spots)}"/>'
            for x, y, met in spots:
                kind = "met" if met else "missed"
                yield f'<circle class="{kind} {style}" cx="{x:.1f}" cy="{y:.1f}" r="3.5" stroke-width="1.5"/>'
        yield "</g>"


def _style(panel: Panel, name: str) -> str:
    return "abc"[[line.name for line in panel.lines].index(name)]


def _text(x: float, y: float, text: str, style: str = "", anchor: str = "start") -> str:
    attributes = f' class="{style}"' if style else ""
    attributes += f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{attributes}>{escape(text)}</text>'
