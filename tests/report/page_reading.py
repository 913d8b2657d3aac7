"""Reads pages as a browser does, without one: their text, tables, links and the specifications of their charts."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any


@dataclass
class ReadPage(HTMLParser):
    """A page that was read: what it loads, its cells, its text and its charts."""

    charts: list[dict[str, Any]] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    text: str = ""
    open: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.open.append(f"{tag} {given.get('type', '')}".strip())
        self.loaded += [
            value for name, value in attrs if name in ("src", "srcset", "data", "poster") and value
        ]
        if tag == "link" and given.get("href"):
            self.loaded.append(str(given["href"]))
        if tag == "a":
            self.links.append(str(given.get("href")))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        while self.open and not self.open.pop().startswith(tag):
            pass

    def handle_data(self, data: str) -> None:
        inside = self.open[-1] if self.open else ""
        if inside == "script application/json":
            self.charts.append(json.loads(data))
        elif not inside.startswith(("script", "style")):
            self.text += data
            if any(tag in ("td", "th") for tag in self.open):
                self.rows[-1][-1] += data

    def row(self, first: str) -> list[str]:
        """Return the first row of a table that begins with ``first``."""
        return next(row for row in self.rows if row and row[0] == first)


def read_page(text: str) -> ReadPage:
    page = ReadPage()
    page.feed(text)
    return page


def values_of(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of data of a chart and of its layers."""
    named = spec.get("datasets", {})
    rows: list[dict[str, Any]] = []
    for part in (spec, *spec.get("layer", [])):
        data = part.get("data", {})
        rows += data.get("values", named.get(data.get("name"), []))
    return rows
