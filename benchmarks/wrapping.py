"""Fills the prose of a generated page to its width, and leaves tables and code alone."""

from __future__ import annotations

import re
import textwrap


def wrapped(text: str) -> str:
    """Return prose in lines of at most 118 columns: paragraphs and list items are filled, tables left alone."""
    parts = []
    for paragraph in text.split("\n\n"):
        if paragraph.startswith(("|", "#")):
            parts.append(paragraph)
            continue
        items = re.split(r"\n(?=- )", paragraph)
        fill = [
            textwrap.fill(
                " ".join(item.split()).replace(" %", "\N{NO-BREAK SPACE}%"),
                118,
                subsequent_indent="  " if item.startswith("- ") else "",
                break_long_words=False,
                break_on_hyphens=False,
            )
            for item in items
        ]
        parts.append("\n".join(fill))
    return "\n\n".join(parts).replace("\N{NO-BREAK SPACE}", " ")
