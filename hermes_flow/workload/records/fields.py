"""Reads numbers out of JSON records, and refuses what is not a number."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hermes_flow.program.units import NS_PER_S
from hermes_flow.workload.records.record_format import Source

UNIT_NS = {
    "ns": 1.0,
    "us": 1e3,
    "ms": 1e6,
    "s": 1e9,
    "sec": 1e9,
    "seconds": 1e9,
    "nanoseconds": 1.0,
    "microseconds": 1e3,
    "milliseconds": 1e6,
}


def at(value: Any, path: str) -> Any:
    """Return what stands at a dotted path of nested mappings, or None."""
    for name in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    return value


def first_of(value: Any, *paths: str) -> Any:
    """Return what stands at the first of several paths that has something, or None."""
    return next((found for path in paths if (found := at(value, path)) is not None), None)


def number(value: Any) -> float | None:
    """Return a number, also one written as text; None for anything else. Raises ValueError for NaN and infinity."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if not math.isfinite(value):
        raise ValueError(f"a number is {value}; expected a finite one")
    return float(value)


def whole(value: Any) -> int | None:
    """Return a whole number, also one written as text or as 12.0; None for anything else. Raises as ``number``."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    found = number(value)
    return int(found) if found is not None and found.is_integer() else None


def required_whole(value: Any, name: str, least: int, source: Source, line: int | None) -> int:
    """Return a whole number of at least ``least``; raises TraceError naming ``name``."""
    found = whole(value)
    if found is None or found < least:
        shown = "missing" if value is None else repr(value)[:60]
        raise source.error(line, f"{name} is {shown}; expected a whole number, at least {least}")
    return found


def ns(seconds: float | None) -> int | None:
    """Return seconds as whole nanoseconds."""
    return None if seconds is None else round(seconds * NS_PER_S)


def since_first(times_s: Sequence[float | None]) -> list[int | None]:
    """Return times in seconds as ns after the earliest one."""
    known = [time for time in times_s if time is not None]
    origin = min(known, default=0.0)
    return [None if time is None else round((time - origin) * NS_PER_S) for time in times_s]


def in_ns(metric: Any) -> int | None:
    """Return a metric with value and unit, ``{"value": 12.5, "unit": "ms"}``, in ns; None without one."""
    value = number(at(metric, "value"))
    unit = UNIT_NS.get(str(at(metric, "unit")).lower())
    return None if value is None or unit is None else round(value * unit)


def left_out(count: int, of: int, what: str) -> list[str]:
    """Return a note on requests that are left out of a run, if there are any."""
    if not count:
        return []
    return [f"workload.path: {count:,} of {of:,} requests {what} and are left out"]
