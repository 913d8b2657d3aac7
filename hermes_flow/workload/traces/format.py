"""The interface of trace formats, their columns, and finding the format of a file."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from hermes_flow.config.registry import Registry
from hermes_flow.errors import TraceError
from hermes_flow.workload.traces.cells import Cells, text_of

if TYPE_CHECKING:
    import polars as pl

    from hermes_flow.workload.traces.files import TraceFile

Fills = Literal[
    "arrival_ns",
    "input_tokens",
    "output_tokens",
    "session",
    "priority",
    "model",
    "pipeline",
    "prefixes",
    "answers",
    "output_limit",
    "ignore_eos",
]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a format.

    ``fills`` is the column of Requests it becomes, None where its cells are only checked. ``blank`` is what
    a missing cell stands for; where it is None the column and all its cells are required, except that
    several columns which fill the same are alternatives: a file has one of them. ``zero`` is what 0 means in
    this format, where it is not valid. With ``all_or_none`` a cell may be missing only where all are.
    """

    name: str
    fills: Fills | None
    cells: Cells
    blank: int | None = None
    zero: str = ""
    all_or_none: bool = False

    def read(self, cells: pl.Series) -> pl.Series:
        """Return the column as Int64, null where a cell is not valid (or missing, and required)."""
        values = self.cells.read(cells)
        missing = _missing(cells)
        if self.blank is None or (self.all_or_none and not missing.all()):
            return values
        return values.set(missing, self.blank)

    def problem(self, cells: pl.Series, row: int) -> str:
        """Return the problem of the cell at ``row``."""
        if _missing(cells)[row]:
            return f"{self.name} is missing; expected {self.cells.expected}"
        cell = text_of(cells[row : row + 1])[0]
        number = _number(cell)
        shown = repr(cell[:60]) if number is None else cell
        hint = f" ({self.zero})" if self.zero and number == 0 else ""
        return f"{self.name} is {shown}; expected {self.cells.expected}{hint}"


class TraceFormat(Protocol):
    """The format that ``workload.format`` names.

    ``from_first``: arrivals are dates, and are counted from the earliest of them; otherwise from 0 of the
    file's own clock. ``prefix_block_tokens``: the tokens of the blocks that a column of block ids names,
    where the format says so.
    """

    columns: tuple[Column, ...]
    from_first: bool
    prefix_block_tokens: int | None


trace_formats: Registry[TraceFormat] = Registry("trace format", tag="format", package=__package__)


def find_format(name: str, file: TraceFile) -> type[TraceFormat]:
    """Return the format called ``name``, or for "auto" the one whose required columns ``file`` has.

    Raises ConfigError where there is no such format, TraceError where none or several fit.
    """
    if name != "auto":
        return trace_formats.find(name, "workload.format", others=("auto",))
    formats = {name: trace_formats.find(name, "workload.format") for name in trace_formats.names}
    fitting = [name for name, layout in formats.items() if not _lacking(layout, file.names)]
    if len(fitting) == 1:
        return formats[fitting[0]]
    seen = ", ".join(file.names)
    if fitting:
        raise TraceError(
            str(file.path),
            file.header_line,
            f"the columns {seen} fit several formats; choose one with workload.format={'|'.join(fitting)}",
        )
    known = "; ".join(f"{name}: {_required(layout)}" for name, layout in formats.items())
    raise TraceError(str(file.path), file.header_line, f"the columns {seen} fit no format; expected {known}")


def columns_of(layout: type[TraceFormat], file: TraceFile) -> list[Column]:
    """Return the columns of the format that ``file`` has (of JSON lines also those it may have later).

    Raises TraceError where a required one is missing, or several alternatives are there.
    """
    lacking = _lacking(layout, file.names)
    if lacking:
        raise TraceError(
            str(file.path),
            file.header_line,
            f"no column {', '.join(lacking)}; the file has {', '.join(file.names)}",
        )
    present = [
        column
        for column in layout.columns
        if column.name in file.names or (file.any_line_may_add_columns and column.blank is not None)
    ]
    for fills in dict.fromkeys(column.fills for column in present if column.fills):
        same = [column.name for column in present if column.fills == fills]
        if len(same) > 1:
            raise TraceError(
                str(file.path), file.header_line, f"has {' and '.join(same)}; expected one of them"
            )
    return present


def _lacking(layout: type[TraceFormat], names: Collection[str]) -> list[str]:
    """The required columns (alternatives as "a or b") that are not among ``names``."""
    return [
        " or ".join(alternatives)
        for alternatives in _alternatives(layout)
        if not any(name in names for name in alternatives)
    ]


def _required(layout: type[TraceFormat]) -> str:
    return ", ".join(" or ".join(alternatives) for alternatives in _alternatives(layout))


def _alternatives(layout: type[TraceFormat]) -> list[list[str]]:
    required: dict[str | None, list[str]] = {}
    for column in layout.columns:
        if column.blank is None:
            required.setdefault(column.fills, []).append(column.name)
    return list(required.values())


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _missing(cells: pl.Series) -> pl.Series:
    import polars as pl

    return text_of(cells).is_null() if cells.dtype == pl.String else cells.is_null()
