"""Reads tables from files whose columns have types, which are those of Parquet and of Arrow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hermes_flow.config.unreadable import unreadable
from hermes_flow.errors import TraceError

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, slots=True)
class TypedFile:
    """A Parquet file, or one of Arrow (Feather); cells come with the types they have."""

    path: Path
    names: list[str]
    arrow: bool = False
    header_line: None = None
    any_line_may_add_columns: bool = False

    def table(self, names: list[str], limit: int | None) -> pl.DataFrame:
        """Read the columns."""
        try:
            return self._scan(limit).select(names).collect()
        except unreadable() as error:
            raise TraceError(str(self.path), None, f"cannot be read: {_first_line(error)}") from error

    def lazy(self, names: list[str]) -> pl.LazyFrame:
        """Return the columns."""
        return self._scan(None).select(names)

    def collected(self, lazy: pl.LazyFrame) -> pl.DataFrame:
        """Read what was selected."""

        try:
            return lazy.collect(engine="streaming")
        except unreadable() as error:
            raise TraceError(str(self.path), None, f"cannot be read: {_first_line(error)}") from error

    def place(self, row: int) -> tuple[int | None, str]:
        """Return no line, but the row counted from 1."""
        return None, f"row {row + 1} (counted from 1): "

    def _scan(self, limit: int | None) -> pl.LazyFrame:
        import polars as pl

        if self.arrow:
            return pl.scan_ipc(self.path, glob=False, n_rows=limit)
        return pl.scan_parquet(self.path, glob=False, n_rows=limit)


def typed_names(path: Path, arrow: bool) -> list[str]:
    """Return the names of the columns; raises TraceError where the file is damaged or of another kind."""
    import polars as pl

    try:
        return list(pl.read_ipc_schema(path) if arrow else pl.read_parquet_schema(path))
    except unreadable() as error:
        kind = "an Arrow file (streams of Arrow are not read)" if arrow else "a Parquet file"
        raise TraceError(str(path), None, f"is not {kind}: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0]
