"""Reads one file of measurements as arrays, or raises an error that names file and line."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hermes_flow.config.unreadable import unreadable
from hermes_flow.errors import ConfigError

if TYPE_CHECKING:
    import polars as pl

Floats = NDArray[np.float64]

KEY = "cost.path"


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of a file that were asked for: numbers as floats, words as they are; ``time_us`` is the time."""

    path: Path
    numbers: Mapping[str, Floats]
    words: Mapping[str, NDArray[np.str_]]
    rows: NDArray[np.int64]  # of the file, the first one 0

    @property
    def time_us(self) -> Floats:
        """Measured microseconds."""
        return self.numbers["time_us"]

    def __len__(self) -> int:
        return len(self.rows)

    def where(self, mask: NDArray[np.bool_]) -> Table:
        """Return the rows of ``mask``."""
        return Table(
            self.path,
            {name: column[mask] for name, column in self.numbers.items()},
            {name: column[mask] for name, column in self.words.items()},
            self.rows[mask],
        )

    def place(self, row: int) -> str:
        """Name row ``row`` of this table as the file and the line (CSV) or row (Parquet) it came from."""
        return place(self.path, int(self.rows[row]))


def place(path: Path, row: int) -> str:
    """Name a row of a file; the first line of a CSV file is its header."""
    return f"{path}:{row + 2}" if path.suffix == ".csv" else f"{path}, row {row + 1}"


def problem(where: object, what: str) -> ConfigError:
    """Return the error that the tables at ``cost.path`` have this fault there."""
    return ConfigError(KEY, f"{where}: {what}")


def read_table(
    path: Path,
    numbers: Sequence[str],
    words: Sequence[str] = (),
    *,
    time: str = "time_us",
    us: float = 1.0,
    optional: Mapping[str, float] | None = None,
) -> Table:
    """Return the columns of a CSV or Parquet file; the column ``time``, times ``us``, as ``time_us``.

    ``optional`` columns that the file lacks have the value given there. Raises ConfigError where a column is
    missing, a cell is empty or not a number, a size is negative or a time not positive.
    """
    frame = _frame(path)
    optional = optional or {}
    for name in (*numbers, *words, time):
        if name not in frame.columns:
            raise problem(path, f"lacks the column {name!r} (it has: {', '.join(frame.columns)})")
    columns = {name: _numbers(path, frame, name) for name in numbers}
    for name, value in optional.items():
        known = name in frame.columns
        columns[name] = _numbers(path, frame, name) if known else np.full(frame.height, value)
    columns["time_us"] = _numbers(path, frame, time, positive=True) * us
    return Table(
        path,
        columns,
        {name: _words(path, frame, name) for name in words},
        np.arange(frame.height, dtype=np.int64),
    )


def _frame(path: Path) -> pl.DataFrame:
    import polars as pl

    try:
        if path.suffix == ".csv":
            _require_names_once(path)
            return pl.read_csv(path, infer_schema=False)
        return pl.read_parquet(path)
    except unreadable() as error:
        raise problem(path, f"cannot be read ({str(error).splitlines()[0]})") from None


def _require_names_once(path: Path) -> None:
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as opened:
        names = next(csv.reader(opened), [])
    twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
    if twice is not None:
        raise problem(f"{path}:1", f"has the column {twice!r} twice")


def _numbers(path: Path, frame: pl.DataFrame, name: str, *, positive: bool = False) -> Floats:
    import polars as pl

    cells = frame[name]
    if cells.dtype == pl.String:
        cells = cells.str.strip_chars()
    values: Floats = cells.cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy().astype(np.float64)
    wrong = ~np.isfinite(values) | (values <= 0 if positive else values < 0)
    if wrong.any():
        row = int(np.argmax(wrong))
        found = "empty" if cells[row] is None or cells[row] == "" else repr(cells[row])
        expected = "a positive number" if positive else "a number ≥ 0"
        raise problem(place(path, row), f"{name} is {found}; expected {expected}")
    return values


def _words(path: Path, frame: pl.DataFrame, name: str) -> NDArray[np.str_]:
    import polars as pl

    cells = frame[name].cast(pl.String)
    if cells.null_count():
        raise problem(place(path, int(cells.is_null().arg_max() or 0)), f"{name} is empty")
    return cells.to_numpy().astype(np.str_)
