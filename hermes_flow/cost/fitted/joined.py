"""Presents several tables of measurements with the same columns as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hermes_flow.errors import TraceError
from hermes_flow.workload.traces.files import TraceFile

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class JoinedTables:
    """The rows of ``files`` one after another; each file has the columns of the first, in any order."""

    files: Sequence[TraceFile]
    header_line: None = None
    any_line_may_add_columns: bool = False

    @property
    def path(self) -> Path:
        """The paths of the files, for messages."""
        return Path(", ".join(str(file.path) for file in self.files))

    @property
    def names(self) -> list[str]:
        """The names of the columns; raises TraceError where a file has others."""
        first = self.files[0].names
        for file in self.files[1:]:
            other = sorted(set(file.names) ^ set(first))
            if other:
                problem = f"its columns are not those of {self.files[0].path}: {', '.join(other)}"
                raise TraceError(str(file.path), file.header_line, problem)
        return first

    def table(self, names: list[str], limit: int | None) -> pl.DataFrame:
        """Read the columns of all files as text."""
        import polars as pl

        tables = [file.table(names, None).cast(pl.String) for file in self.files]
        joined = pl.concat(tables)
        return joined if limit is None else joined.head(limit)

    def lazy(self, names: list[str]) -> pl.LazyFrame:
        """Return the columns of all rows."""
        return self.table(names, None).lazy()

    def collected(self, lazy: pl.LazyFrame) -> pl.DataFrame:
        """Return what was selected."""
        return lazy.collect()

    def place(self, row: int) -> tuple[int | None, str]:
        """Return no line, but the file and the line or row."""
        ends = np.cumsum([file.table(file.names[:1], None).height for file in self.files])
        number = int(np.searchsorted(ends, row, side="right"))
        line, words = self.files[number].place(row - int(ends[number - 1] if number else 0))
        return (
            None,
            f"{self.files[number].path}{':' if line is not None else ', '}{line if line is not None else words}",
        )
