"""Reads the rows of a trace that arrive within a window of time, in batches and in little memory."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hermes_flow.config.schema import TraceWorkload
from hermes_flow.errors import ConfigError, TraceError
from hermes_flow.program.units import NS_PER_S, Ints
from hermes_flow.workload.number_checks import MAX_SECONDS, require_not_negative, require_positive
from hermes_flow.workload.reading.clock import LONG_AGO_NS
from hermes_flow.workload.traces.cells import INT64_MAX, Clock, Date
from hermes_flow.workload.traces.files import TraceFile
from hermes_flow.workload.traces.format import Column

if TYPE_CHECKING:
    import polars as pl

_ROW = "row of the file"
_HEAD = 1000  # cells that show the form of dates
_SECONDS = len("2024-05-12 08:00:00")
_REST = r"\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:00)?$"
_LAST_SECOND = 253_402_300_799  # of the year 9999


@dataclass(frozen=True, slots=True)
class Windowed:
    """The rows in a window: their table, their numbers in the file, and the instant that arrivals count from."""

    table: pl.DataFrame
    rows: Ints
    origin_ns: int


def is_window(workload: TraceWorkload) -> bool:
    """Return whether the workload reads only a window of its file; raises ConfigError where it is none."""
    if isinstance(workload.start, float):
        require_not_negative(workload.start, "workload.start", "seconds")
        _require_seconds(workload.start, "workload.start")
    if workload.duration is not None:
        require_positive(workload.duration, "workload.duration", "seconds")
        _require_seconds(workload.duration, "workload.duration")
    return workload.start is not None or workload.duration is not None


def read_window(
    file: TraceFile, names: list[str], arrival: Column, workload: TraceWorkload, from_first: bool
) -> Windowed:
    """Read the rows that arrive from ``workload.start`` on, for ``workload.duration``; rows without a time are kept.

    Dates count from the earliest one, other times from 0 of the file's clock. Raises ConfigError where the start is a
    date and the times are not, TraceError where no row is in the window.
    """
    import polars as pl

    lazy = file.lazy(names)
    coarse = _Coarse(arrival, file.collected(lazy.select(arrival.name).head(_HEAD))[arrival.name])
    first, last = coarse.ends_ns(file, lazy)
    dated = from_first or isinstance(arrival.cells, Date) or first > LONG_AGO_NS
    begin = _begin(workload.start, first if dated else 0, dated)
    end = INT64_MAX if workload.duration is None else begin + round(workload.duration * NS_PER_S)
    near = file.collected(lazy.with_row_index(_ROW).filter(coarse.within(begin, end))).sort(_ROW)
    times = arrival.read(near[arrival.name])
    table = near.filter((times.is_null() | ((times >= begin) & (times < end))).fill_null(True))
    if workload.limit is not None:
        table = table.head(workload.limit)
    if not table.height or not table[arrival.name].is_not_null().any():
        origin = first if dated else 0
        shown = [
            "the end" if time == INT64_MAX else _seconds(time - origin) for time in (begin, end, first, last)
        ]
        has = f"the file has arrivals from {shown[2]} to {shown[3]}"
        problem = f"no request arrives from {shown[0]} to {shown[1]}; {has}"
        raise TraceError(str(file.path), None, problem)
    rows = table[_ROW].cast(pl.Int64).to_numpy()
    return Windowed(table.drop(_ROW), rows, begin)


class _Coarse:
    """Compares a column of times with instants fast and with a margin, without reading each cell exactly.

    Dates are compared as texts up to the second, where the cells of the head have one form; numbers as floats. Cells
    that are neither are never left out, so that they are read exactly, and refused, afterwards.
    """

    def __init__(self, arrival: Column, head: pl.Series) -> None:
        import polars as pl

        self._arrival = arrival
        self._name = arrival.name
        self._cell = pl.col(arrival.name)
        self._text = False
        self._exact = not (head.dtype.is_numeric() or head.dtype == pl.String)
        if isinstance(arrival.cells, Date) and head.dtype == pl.String:
            known = head.drop_nulls()
            self._separator = known[0][10:11] if len(known) else " "
            form = rf"^\d{{4}}-\d\d-\d\d{re.escape(self._separator)}{_REST}"
            self._text = bool(len(known) and known.str.contains(form).all())
            self._odd = ~self._cell.str.contains(form)

    def ends_ns(self, file: TraceFile, lazy: pl.LazyFrame) -> tuple[int, int]:
        """Return the earliest and the latest time; raises TraceError where no cell is one."""

        key = self._cell.str.slice(0, _SECONDS) if self._text else self._numbers()
        regular = lazy.filter(~self._odd) if self._text else lazy
        ends = file.collected(regular.select(key.min().alias("first"), key.max().alias("last")))
        found = []
        for end in ("first", "last"):
            if ends[end][0] is None:
                raise TraceError(str(file.path), None, f"no row has a valid {self._name}")
            cells = file.collected(regular.filter(key == ends[end][0]).select(self._name))[self._name]
            times = self._arrival.read(cells).drop_nulls()
            if not len(times):
                raise TraceError(str(file.path), None, f"no row has a valid {self._name}")
            found.append(int(times.min() if end == "first" else times.max()))  # type: ignore[arg-type]
        return found[0], found[1]

    def within(self, begin_ns: int, end_ns: int) -> pl.Expr:
        """Return whether a cell may be from ``begin_ns`` on and before ``end_ns``."""
        if self._text:
            text = self._cell.str.slice(0, _SECONDS)
            low, high = (self._second(at_ns) for at_ns in (begin_ns, end_ns))
            kept = (text >= low) & (text <= high)
            return kept.fill_null(True) | self._odd.fill_null(True)
        if self._exact or not isinstance(self._arrival.cells, Clock):
            import polars as pl

            exact = self._cell.map_batches(self._arrival.read, return_dtype=pl.Int64, is_elementwise=True)
            return ((exact >= begin_ns) & (exact < end_ns)).fill_null(True)
        scale = 10.0 ** (9 - self._arrival.cells.digits)
        margin = 1.0 + 1e-12 * max(abs(begin_ns), min(end_ns, INT64_MAX // 2))
        number = self._numbers()
        kept = (number >= (begin_ns - margin) / scale) & (number <= (end_ns + margin) / scale)
        return kept.fill_null(True)

    def _numbers(self) -> pl.Expr:
        import polars as pl

        if isinstance(self._arrival.cells, Clock) and not self._exact:
            return self._cell.cast(pl.Float64, strict=False)
        return self._cell.map_batches(self._arrival.read, return_dtype=pl.Int64, is_elementwise=True)

    def _second(self, at_ns: int) -> str:
        """Return the second of an instant as the file writes it."""
        seconds = min(at_ns // NS_PER_S, _LAST_SECOND)
        moment = datetime.datetime.fromtimestamp(seconds, tz=datetime.UTC)
        return moment.strftime(f"%Y-%m-%d{self._separator}%H:%M:%S")


def _begin(start: float | str | None, origin_ns: int, dated: bool) -> int:
    if start is None:
        return origin_ns
    if not isinstance(start, str):
        return origin_ns + round(start * NS_PER_S)
    import polars as pl

    moment = Date().read(pl.Series([start if len(start) > 10 else f"{start} 00:00:00"]))[0]
    if moment is None and len(start) == len("2024-05-12 08:00"):
        moment = Date().read(pl.Series([f"{start}:00"]))[0]
    if moment is None:
        problem = f"{start!r} is neither a number of seconds nor a date such as 2024-05-12 08:00:00"
        raise ConfigError("workload.start", problem)
    if not dated:
        raise ConfigError(
            "workload.start", f"{start!r} is a date, and the times of the file are not; expected seconds"
        )
    return int(moment)


def _seconds(time_ns: int) -> str:
    return f"{time_ns / NS_PER_S:,.3f} s"


def _require_seconds(value: float, key: str) -> None:
    if not np.isfinite(value) or value > MAX_SECONDS:
        raise ConfigError(key, f"{value:g} s is too long; expected at most {MAX_SECONDS:.3g} s")
