"""Decides the unit of a column of arrival times, from what is declared and from what is plausible.

A unit that the user or the column's name gives is taken. Otherwise the mean time between requests has to be possible
in the documented unit and in no other one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hermes_flow.errors import ConfigError, TraceError
from hermes_flow.workload.traces.cells import Cells, Clock, Date, text_of
from hermes_flow.workload.traces.format import Column

if TYPE_CHECKING:
    import polars as pl

    from hermes_flow.workload.traces.files import TraceFile

CLOCKS = {
    "s": Clock("seconds", 0),
    "ms": Clock("milliseconds", 3),
    "us": Clock("microseconds", 6),
    "ns": Clock("nanoseconds", 9),
}
LONG_AGO_NS = 10 * 365 * 86_400 * 10**9  # a clock that starts later than this counts from 1970

_SUFFIXES = {
    "s": "s|sec|secs|second|seconds",
    "ms": "ms|msec|msecs|millis|millisecond|milliseconds",
    "us": "us|usec|usecs|micros|microsecond|microseconds",
    "ns": "ns|nsec|nsecs|nanos|nanosecond|nanoseconds",
}
_EPOCH_S = (3e8, 6e9)  # seconds since 1970: from 1979 to 2160
_LEAST_GAP_S, _MOST_GAP_S = 1e-3, 600.0  # mean times between requests that nobody wonders about
_CROWDED_GAP_S = 0.01  # a mean time below this, in whole milliseconds, may as well be seconds
_SLOW_GAP_S = 120.0  # a mean time above this, in whole seconds, may as well be milliseconds
_FRACTION_S = 5.0  # times with fractions and a mean gap below this are seconds
_FEW = 3  # fewer rows tell nothing about a mean gap


@dataclass(frozen=True, slots=True)
class _Seen:
    """The numbers of a column of times, in the column's own unit: their least, mean gap, count, and fractions."""

    least: float
    gap: float
    rows: int
    fractions: bool


def unit_of_name(name: str) -> str | None:
    """Return the unit that ends the name of a column (``ts_ms``, ``arrival_unix_ms``, ``seconds``), or None."""
    for unit, words in _SUFFIXES.items():
        if re.search(rf"(?:^|[_\s.(\[-])(?:{words})[)\]]?$", name.lower()):
            return unit
    return None


def decided(column: Column, cells: pl.Series, time_unit: str | None, file: TraceFile) -> tuple[Column, str]:
    """Return the column of arrivals with the clock that reads it, and what a user should know about that, or "".

    ``cells`` are those of the file or of its head. Raises ConfigError where ``workload.time_unit`` contradicts the
    column, TraceError where several units are plausible.
    """
    if isinstance(column.cells, Date) or (column.unit == "open" and _are_dates(cells)):
        if time_unit is not None:
            raise ConfigError(
                "workload.time_unit", f"{time_unit}; {column.name} has dates, which need no unit"
            )
        return replace(column, cells=Date()), ""
    known = _unit(column.cells) if column.unit != "open" else None
    seen = _seen(cells)
    if column.unit == "named" and time_unit not in (None, known):
        raise ConfigError("workload.time_unit", f"{time_unit}; the name {column.name} says {known}")
    epoch = None if seen is None else _epoch_unit(seen)
    if time_unit is not None or column.unit == "named":
        unit = time_unit or known
        assert unit is not None
        return replace(column, cells=CLOCKS[unit]), ""
    if epoch is not None and (epoch == known or _plausible(seen, epoch)):
        return replace(column, cells=CLOCKS[epoch]), ""
    return _by_plausibility(column, known, seen, file)


def _by_plausibility(
    column: Column, known: str | None, seen: _Seen | None, file: TraceFile
) -> tuple[Column, str]:
    if seen is None or (seen.rows >= 1 and seen.least == 0 and seen.gap == 0):  # 0 is 0 in every unit
        return replace(column, cells=CLOCKS[known or "s"]), ""
    if known is None:
        raise _ambiguous(column, seen, [unit for unit in CLOCKS if _plausible(seen, unit)], file)
    gap_s = seen.gap * 10.0 ** -CLOCKS[known].digits
    if known == "ms" and seen.fractions and seen.gap <= 60.0:
        if seen.gap >= _FRACTION_S:
            raise _ambiguous(column, seen, ["s", "ms"], file)
        note = (
            f"workload.path: {column.name} is read in seconds, because its times have fractions and would be less "
            f"than {_FRACTION_S:g} ms apart in milliseconds; workload.time_unit=ms reads milliseconds"
        )
        return replace(column, cells=CLOCKS["s"]), note
    crowded = known == "ms" and gap_s < _CROWDED_GAP_S
    slow = known == "s" and gap_s > _SLOW_GAP_S
    if known == "s" and seen.fractions:
        return column, ""
    if seen.rows >= _FEW and seen.gap > 0 and (crowded or slow or not _plausible(seen, known)):
        others = [unit for unit in CLOCKS if unit != known and _plausible(seen, unit)]
        if others:
            raise _ambiguous(column, seen, [known, *others], file)
    return column, ""


def _ambiguous(column: Column, seen: _Seen, units: list[str], file: TraceFile) -> TraceError:
    units = units or list(CLOCKS)
    ways = " or ".join(f"{CLOCKS[unit].unit} ({_rate(seen, unit)})" for unit in units)
    keys = " or ".join(f"workload.time_unit={unit}" for unit in units)
    problem = f"{column.name} may be in {ways}; set {keys}"
    return TraceError(str(file.path), file.header_line, problem)


def _rate(seen: _Seen, unit: str) -> str:
    gap_s = seen.gap * 10.0 ** -CLOCKS[unit].digits
    if gap_s <= 0:
        return "all at once"
    return f"{1.0 / gap_s:.3g} requests per second" if gap_s < 1 else f"a request every {gap_s:.3g} s"


def _plausible(seen: _Seen | None, unit: str) -> bool:
    if seen is None:
        return False
    gap_s = seen.gap * 10.0 ** -CLOCKS[unit].digits
    return seen.rows < 2 or _LEAST_GAP_S <= gap_s <= _MOST_GAP_S


def _epoch_unit(seen: _Seen) -> str | None:
    """Return the unit in which the times are dates of our age, counted from 1970."""
    for unit, clock in CLOCKS.items():
        if _EPOCH_S[0] <= seen.least * 10.0**-clock.digits <= _EPOCH_S[1]:
            return unit
    return None


def _unit(cells: Cells) -> str | None:
    return next((unit for unit, clock in CLOCKS.items() if clock == cells), None)


def _seen(cells: pl.Series) -> _Seen | None:
    """Look at the numbers of the column; None where it has none."""
    import polars as pl

    if cells.dtype == pl.Duration:  # a span knows its unit
        return None
    numbers = cells if cells.dtype.is_numeric() else text_of(cells).cast(pl.Float64, strict=False)
    numbers = numbers.cast(pl.Float64, strict=False).drop_nulls()
    numbers = numbers.filter(numbers.is_finite())
    if not len(numbers):
        return None
    least, most = float(numbers.min()), float(numbers.max())  # type: ignore[arg-type]
    gap = (most - least) / (len(numbers) - 1) if len(numbers) > 1 else 0.0
    return _Seen(least, gap, len(numbers), bool((numbers != numbers.floor()).any()))


def _are_dates(cells: pl.Series) -> bool:
    import polars as pl

    if cells.dtype.is_temporal():
        return cells.dtype in (pl.Date, pl.Datetime)
    if cells.dtype.is_numeric() or cells.dtype.is_nested():
        return False
    return bool(Date().read(text_of(cells).drop_nulls().head(1)).is_not_null().any())
