"""The template of every page: one HTML file with its style, its charts and the code that draws them inside.

A page needs no network. Its colours are CSS variables (charts/colours.css), which the charts use too, so that the
page and its charts follow the reader's light or dark scheme and are light in print. The functions here return pieces
of HTML; all text that comes from outside is escaped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

from hermes_flow.report.charts.theme import Spec, colours, themed


@dataclass(frozen=True, slots=True)
class Cell:
    """The text of a table's cell; ``style`` is a class of style.css, such as "good", "bad", "left" or "prose"."""

    text: str
    style: str = ""


def page(title: str, subtitle: str, parts: Iterable[str]) -> str:
    """Return a whole page. ``parts`` are the pieces of its body, below the title."""
    body = "\n".join(parts)
    drawing = ""
    if '<figure class="chart"' in body:
        # A module has a scope of its own; the library hangs itself on window, from which the script takes it.
        drawing = f'<script type="module">{_script(_vega())}</script>\n'
        drawing += f'<script type="module">{_script(_own("script.js"))}</script>\n'
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{colours()}{_own('style.css')}</style></head>\n<body>\n"
        f'<h1>{escape(title)}</h1>\n<p class="soft">{escape(subtitle)}</p>\n'
        f"{body}\n{drawing}</body></html>\n"
    )


def heading(text: str, anchor: str = "") -> str:
    """Return the heading of a section; ``anchor`` is its name in links."""
    place = f' id="{escape(anchor)}"' if anchor else ""
    return f"<h2{place}>{escape(text)}</h2>"


def paragraph(text: str, style: str = "") -> str:
    """Return a paragraph of plain text."""
    return f'<p class="{style}">{escape(text)}</p>' if style else f"<p>{escape(text)}</p>"


def verdict(headline: str, style: str, texts: Iterable[str]) -> str:
    """Return the box that says first what matters; ``style`` is "met", "missed" or ""."""
    rest = "".join(f"<p>{escape(text)}</p>" for text in texts)
    return f'<div class="verdict {style}"><b>{escape(headline)}</b>{rest}</div>'


def tiles(figures: Iterable[tuple[str, str, str]]) -> str:
    """Return key figures as tiles, each with a name, a value and a note below it (may be empty)."""
    shown = "".join(
        f'<div class="tile"><span>{escape(name)}</span><b>{escape(value)}</b>'
        + (f"<small>{escape(note)}</small>" if note else "")
        + "</div>"
        for name, value, note in figures
    )
    return f'<div class="tiles">{shown}</div>'


def table(headings: Sequence[Cell | str], rows: Iterable[Sequence[Cell | str]], left: int = 1) -> str:
    """Return a table; the first ``left`` columns hold text, and the others numbers, unless a cell says otherwise."""
    style = ["left" if index < left else "" for index in range(len(headings))]
    head = "".join(_cell(cell, name, "th") for cell, name in zip(headings, style, strict=True))
    lines = [
        "<tr>" + "".join(_cell(cell, name) for cell, name in zip(row, style, strict=True)) + "</tr>"
        for row in rows
    ]
    joined = "\n".join(lines)
    return f'<div class="wide" tabindex="0"><table><tr>{head}</tr>\n{joined}</table></div>'


def chart(title: str, caption: str, spec: Spec) -> str:
    """Return a chart with its title and a caption that says how to read it."""
    return (
        f'<figure class="chart"><h3>{escape(title)}</h3><figcaption>{escape(caption)}</figcaption>'
        f'<div class="drawing" role="img" aria-label="{escape(title)}"></div>'
        f'<script type="application/json">{embedded_json(themed(spec))}</script></figure>'
    )


def side_by_side(parts: Iterable[str]) -> str:
    """Return charts in as many columns as the page has room for."""
    return f'<div class="charts">{"".join(parts)}</div>'


def folded(summary: str, content: str) -> str:
    """Return content that the reader can unfold."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def code(text: str) -> str:
    """Return text as it is, in the type of a terminal."""
    return f"<pre>{escape(text)}</pre>"


def link(target: str, text: str) -> str:
    """Return a link to a file beside the page."""
    return f'<a href="{escape(target)}">{escape(text)}</a>'


def _cell(cell: Cell | str, style: str, tag: str = "td") -> str:
    if isinstance(cell, Cell):
        both = " ".join(filter(None, (style, cell.style)))
        return f"<{tag}{_class(both)}>{escape(cell.text)}</{tag}>"
    return f"<{tag}{_class(style)}>{cell if cell.startswith('<a ') else escape(cell)}</{tag}>"


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""


def embedded_json(value: Any) -> str:
    """Return a value as JSON that can stand in a script element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def _script(code: str) -> str:
    """Return JavaScript in which no text ends its script element."""
    return re.sub(r"</(?=script)", r"<\\/", code, flags=re.IGNORECASE)


def _own(name: str) -> str:
    return files("hermes_flow.report.pages").joinpath(name).read_text(encoding="utf-8")


@cache
def _vega() -> str:
    """Return vega, vega-lite and vega-embed as one script; making it takes a second or two, so it is kept."""
    import vl_convert

    bundle: str = vl_convert.javascript_bundle()  # type: ignore[call-arg]  # its stub knows no default
    return bundle
