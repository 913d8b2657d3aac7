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
    "traffic",
    "tenant",
    "adapter",
    "site",
    "prefixes",
    "answers",
    "output_limit",
    "ignore_eos",
    "delay_ns",
    "stages",
    "images",
    "image_ids",
    "chat",
    "parent_chat",
]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a format.

    ``fills`` is the column of Requests it becomes, None where its cells are only checked. ``blank`` is what
    a missing cell stands for; where it is None the column and all its cells are required, except that
    several columns which fill the same are alternatives: a file has one of them. ``zero`` is what 0 means in
    this format, where it is not valid. With ``all_or_none`` a cell may be missing only where all are. ``unit`` says
    how far the unit of a time is known: "named" by the column's name, "documented" by the format, or "open".
    """

    name: str
    fills: Fills | None
    cells: Cells
    blank: int | None = None
    zero: str = ""
    all_or_none: bool = False
    unit: Literal["named", "documented", "open"] = "documented"

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
        found = getattr(self.cells, "problem", None)
        if found is not None:
            return f"{self.name}{_joined(found(cells[row : row + 1]))}"
        cell = text_of(cells[row : row + 1])[0]
        number = _number(cell)
        shown = repr(cell[:60]) if number is None else cell
        hint = f" ({self.zero})" if self.zero and number == 0 else ""
        most = getattr(self.cells, "most", None)
        limit = f" and at most {most:,}" if most is not None and number is not None and number > most else ""
        return f"{self.name} is {shown}; expected {self.cells.expected}{limit}{hint}"


class TraceFormat(Protocol):
    """The format that ``workload.format`` names.

    ``from_first``: arrivals are dates, and are counted from the earliest of them; otherwise from 0 of the
    file's own clock. ``prefix_block_tokens``: the tokens of the blocks that a column of block ids names,
    where the format says so. Optional besides: ``known``, names of columns that are understood and not needed, and
    ``by_name_only``, true where the columns alone do not tell the format.
    """

    columns: tuple[Column, ...]
    from_first: bool
    prefix_block_tokens: int | None


trace_formats: Registry[TraceFormat] = Registry("trace format", tag="format", package=__package__)


def find_format(
    name: str, file: TraceFile, *, arrivals_drawn: bool = False, others: Collection[str] = ()
) -> type[TraceFormat]:
    """Return the format called ``name``, or for "auto" the one whose required columns ``file`` has.

    Where several fit, the one that requires the columns of all others is taken. With ``arrivals_drawn`` the file need
    not have arrivals; ``others`` are valid names that are no formats of columns. Raises ConfigError where
    there is no such format, TraceError where none or several fit.
    """
    if name != "auto":
        return trace_formats.find(name, "workload.format", others=("auto", *others))
    found = {name: trace_formats.find(name, "workload.format") for name in trace_formats.names}
    formats = {name: layout for name, layout in found.items() if not getattr(layout, "by_name_only", False)}
    fitting = _fitting(formats, file, arrivals_drawn)
    if len(fitting) == 1:
        return formats[fitting[0]]
    seen = ", ".join(file.names)
    if fitting:
        raise TraceError(
            str(file.path),
            file.header_line,
            f"the columns {seen} fit several formats; choose one with workload.format={'|'.join(fitting)}",
        )
    if not arrivals_drawn and _fitting(formats, file, arrivals_drawn=True):
        raise TraceError(str(file.path), file.header_line, no_arrivals(file))
    known = "; ".join(f"{name}: {_required(layout)}" for name, layout in formats.items())
    problem = (
        f"the columns {seen} fit no format; map them with workload.columns={{arrival_s: NAME, input_tokens: NAME, "
        f"output_tokens: NAME}}, or expected {known}"
    )
    raise TraceError(str(file.path), file.header_line, problem)


def no_arrivals(file: TraceFile) -> str:
    """Return the problem of a file without arrival times, and what can be done."""
    return (
        f"no arrival times (the file has {', '.join(file.names)}); map them with "
        "workload.columns={arrival_s: NAME}, "
        "or set workload.arrivals, as in workload.arrivals={process: closed_loop, concurrency: 8} or "
        "workload.arrivals=poisson workload.rate_per_s=2"
    )


def columns_of(layout: type[TraceFormat], file: TraceFile, *, arrivals_drawn: bool = False) -> list[Column]:
    """Return the columns of the format that ``file`` has (of JSON lines also those it may have later).

    Raises TraceError where a required one is missing, or several alternatives are there.
    """
    lacking = _lacking(layout, file.names, arrivals_drawn)
    if lacking and not _lacking(layout, file.names, arrivals_drawn=True):
        raise TraceError(str(file.path), file.header_line, no_arrivals(file))
    if lacking:
        raise TraceError(
            str(file.path),
            file.header_line,
            f"no column {', '.join(lacking)}; the file has {', '.join(file.names)}",
        )
    present = [column for column in layout.columns if column.name in file.names]
    filled = {column.fills for column in present}
    if file.any_line_may_add_columns:
        present += [
            column
            for column in layout.columns
            if column.name not in file.names and column.blank is not None and column.fills not in filled
        ]
    present.sort(key=layout.columns.index)
    for fills in dict.fromkeys(column.fills for column in present if column.fills in filled):
        same = [column.name for column in present if column.fills == fills and fills is not None]
        if len(same) > 1:
            raise TraceError(
                str(file.path), file.header_line, f"has {' and '.join(same)}; expected one of them"
            )
    return present


def _fitting(formats: dict[str, type[TraceFormat]], file: TraceFile, arrivals_drawn: bool) -> list[str]:
    """Return the names of the formats that fit; one alone if it requires the columns of all others, too."""
    fitting = [name for name, layout in formats.items() if not _lacking(layout, file.names, arrivals_drawn)]
    required = {
        name: {column.name for column in formats[name].columns if column.blank is None} for name in fitting
    }
    widest = [
        name
        for name in fitting
        if all(required[name] > required[other] for other in fitting if other != name)
    ]
    return widest or fitting


def _lacking(layout: type[TraceFormat], names: Collection[str], arrivals_drawn: bool = False) -> list[str]:
    """The required columns (alternatives as "a or b") that are not among ``names``."""
    return [
        " or ".join(alternatives)
        for fills, alternatives in _alternatives(layout).items()
        if not (arrivals_drawn and fills == "arrival_ns") and not any(name in names for name in alternatives)
    ]


def _required(layout: type[TraceFormat]) -> str:
    return ", ".join(" or ".join(alternatives) for alternatives in _alternatives(layout).values())


def _alternatives(layout: type[TraceFormat]) -> dict[str | None, list[str]]:
    required: dict[str | None, list[str]] = {}
    for column in layout.columns:
        if column.blank is None:
            required.setdefault(column.fills, []).append(column.name)
    return required


def _joined(problem: str) -> str:
    """Return what follows the name of a column: a part of its cell, or words."""
    return problem if problem.startswith("[") else f" {problem}"


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _missing(cells: pl.Series) -> pl.Series:
    import polars as pl

    return text_of(cells).is_null() if cells.dtype == pl.String else cells.is_null()
