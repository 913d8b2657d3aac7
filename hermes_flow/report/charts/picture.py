"""Charts as pictures in files, for documentation: SVG that follows the light or dark scheme, and PNG."""

from __future__ import annotations

import re
from html import escape

from hermes_flow.report.charts.theme import Spec, colours, themed

_MARGIN = 16


def svg(spec: Spec, title: str, width: int | None = None) -> str:
    """Return a chart as an SVG picture on a card; equal charts give equal pictures.

    ``title`` is for readers who do not see it; ``width`` replaces the width of the page in charts that have it.
    """
    import vl_convert

    drawn: str = vl_convert.vegalite_to_svg(_sized(spec, width))
    size = re.search(r'width="(\d+)" height="(\d+)"', drawn)
    assert size is not None
    wide, high = int(size[1]) + 2 * _MARGIN, int(size[2]) + 2 * _MARGIN
    inner = drawn[drawn.index(">") + 1 : drawn.rindex("</svg>")].replace("><", ">\n<")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {wide} {high}" role="img">\n<title>{escape(title)}</title>\n<style>{colours()}</style>\n'
        f'<rect x=".5" y=".5" width="{wide - 1}" height="{high - 1}" rx="12" fill="var(--back)" '
        f'stroke="var(--line)"/>\n<g transform="translate({_MARGIN},{_MARGIN})">\n{inner}\n</g>\n</svg>\n'
    )


def png(spec: Spec, width: int | None = None, scale: float = 2.0) -> bytes:
    """Return a chart as a PNG picture in light colours; ``scale`` pixels stand for one of the chart."""
    import vl_convert

    values = dict(re.findall(r"(--[\w-]+): ([^;]+);", colours().split("@media")[0]))
    text = re.sub(r"var\((--[\w-]+)\)", lambda found: values[found[1]], _text(_sized(spec, width)))
    picture: bytes = vl_convert.vegalite_to_png(text, scale=scale)
    return picture


def _sized(spec: Spec, width: int | None) -> Spec:
    whole = {**themed(spec), **({} if width is None else {"width": width})}
    if "hconcat" in whole or "vconcat" in whole:
        whole.pop("autosize")  # Vega-Lite fits single charts only
    whole["config"] = {**whole["config"], "aria": False}
    return whole


def _text(spec: Spec) -> str:
    import json

    return json.dumps(spec)
