"""Presents one run of a file of records as a table with the columns of the native format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hermes_flow.workload.records.record_format import Load, Row, Run

if TYPE_CHECKING:
    import polars as pl

_COLUMNS = (
    "arrival_ns",
    "input_tokens",
    "output_tokens",
    "session",
    "delay_ns",
    "prefix_hashes",
    "ttft_ns",
    "e2e_ns",
)
_ALWAYS = ("input_tokens", "output_tokens")


@dataclass(frozen=True)
class RecordTable:
    """One run of a file as a table, its rows in order of arrival where every row has one."""

    path: Path
    run: Run
    header_line: None = None
    any_line_may_add_columns: bool = False

    @property
    def load(self) -> Load | None:
        """How the requests were sent, where the recorded times do not say it."""
        return self.run.load

    @property
    def names(self) -> list[str]:
        """The names of the columns that the run has."""
        return [
            name
            for name in _COLUMNS
            if name in _ALWAYS or any(getattr(row, name) is not None for row in self.run.rows)
        ]

    def table(self, names: list[str], limit: int | None) -> pl.DataFrame:
        """Return the columns ``names`` of the first ``limit`` rows."""
        import polars as pl

        kinds = {"session": pl.String(), "prefix_hashes": pl.List(pl.Int64)}
        rows = self.run.rows if limit is None else self.run.rows[:limit]
        columns = {
            name: pl.Series(name, [_cell(row, name) for row in rows], dtype=kinds.get(name, pl.Int64()))
            for name in names
        }
        return pl.DataFrame(columns)

    def lazy(self, names: list[str]) -> pl.LazyFrame:
        """Return the columns of all rows."""
        return self.table(names, None).lazy()

    def collected(self, lazy: pl.LazyFrame) -> pl.DataFrame:
        """Return what was selected."""
        return lazy.collect()

    def place(self, row: int) -> tuple[int | None, str]:
        """Return the line of a row, and its number counted from 1."""
        return self.run.rows[row].line, f"request {row + 1}: "


def _cell(row: Row, name: str) -> object:
    value = getattr(row, name)
    if name == "prefix_hashes":
        return [] if value is None else list(value)
    return value
