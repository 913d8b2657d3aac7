"""Errors and tables as the pages of accuracy write them."""

from __future__ import annotations

from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def signed(percent: float | None) -> str:
    """Return an error in percent with its sign; empty where there is none."""
    if percent is None:
        return ""
    text = f"{percent:+.1f}" if abs(percent) < 99.95 else f"{percent:+.0f}"
    return f"{text.replace('-', '−')} %"


def size(percent: float) -> str:
    """Return the size of an error in percent."""
    return f"{percent:.1f} %" if percent < 99.95 else f"{percent:.0f} %"
