"""Tables of plain text for the terminal, laid out by Rich.

Rich is imported with the first table: it takes about 20 ms, which every run would pay. The summary of a single run
(console.py) therefore does without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_UNLIMITED = 100_000  # columns; what fits the terminal is decided by who calls


@dataclass(frozen=True, slots=True)
class TextColumn:
    """A column: its heading (one line or several), a cell per row, its least width, and its alignment."""

    heading: str
    cells: Sequence[str]
    least_width: int = 0
    left: bool = False


def laid_out(columns: Sequence[TextColumn], gap: int = 2) -> list[str]:
    """Return the lines of a table without rules, headings first, with ``gap`` spaces between columns."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, gap, 0, 0), pad_edge=False, header_style="")
    for column in columns:
        table.add_column(
            Text(column.heading),
            justify="left" if column.left else "right",
            vertical="bottom",
            min_width=column.least_width,
            no_wrap=True,
        )
    for row in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*(Text(cell) for cell in row))
    console = Console(width=_UNLIMITED, color_system=None, legacy_windows=False)
    with console.capture() as captured:
        console.print(table)
    return [line.rstrip() for line in captured.get().splitlines()]
