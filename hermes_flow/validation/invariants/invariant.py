"""The parts of an invariant: its number, its meaning, the tables it needs and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import polars as pl

    from hermes_flow.validation.invariants.run_files import RunFiles

_ROWS_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """What contradicts an invariant: the file, the rows of it (from 0; none for a figure of the summary), the values.

    ``text`` has the values of the first row.
    """

    file: str
    text: str
    rows: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Invariant:
    """One statement that holds in every run.

    ``needs`` are the files without which it cannot be checked; ``check`` yields what contradicts it.
    """

    number: int
    name: str
    meaning: str
    needs: tuple[str, ...]
    check: Callable[[RunFiles], Iterator[Finding]]


@dataclass(frozen=True, slots=True)
class Violation:
    """An invariant that does not hold in the run of ``folder``, and where."""

    invariant: Invariant
    folder: Path
    finding: Finding

    def __str__(self) -> str:
        found = self.finding
        where = ""
        if found.rows:
            where = f" row {found.rows[0]}"
            if len(found.rows) > 1:
                shown = [str(row) for row in found.rows[:_ROWS_SHOWN]]
                rest = len(found.rows) - len(shown)
                end = f" and {rest:,} more" if rest else ""
                where = f" rows {', '.join(shown)}{end}"
        number = f"INV{self.invariant.number}"
        return f"{number} {self.invariant.name}: {self.folder / found.file}{where}: {found.text}"


def broken_rows(
    file: str, frame: pl.DataFrame, broken: pl.Expr, text: Callable[[Mapping[str, Any]], str]
) -> Iterator[Finding]:
    """Yield one finding with all rows of ``frame`` in which ``broken`` is true; null counts as false.

    ``text`` says what is wrong with the first of them. A column ``row`` numbers the rows where the frame has been
    filtered or sorted; else they are numbered in order.
    """
    import polars as pl

    if "row" not in frame.columns:
        frame = frame.with_row_index("row")
    found = frame.filter(broken.fill_null(pl.lit(value=False)))
    if len(found):
        yield Finding(file, text(found.row(0, named=True)), tuple(found["row"].to_list()))


def differs(found: float | None, expected: float | None, relative: float = 1e-9) -> bool:
    """Return whether two figures differ by more than rounding; None stands for an undefined figure."""
    if found is None or expected is None:
        return found is not expected
    return not bool(np.isclose(found, expected, rtol=relative, atol=1e-12))


def shown(value: Any) -> str:
    """Return a value as it is printed in a finding."""
    return f"{value:.12g}" if isinstance(value, float) else "null" if value is None else str(value)
