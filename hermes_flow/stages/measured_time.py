"""The measured time of a stage: a line over its tokens, or a table of measurements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hermes_flow.config.convert import convert
from hermes_flow.config.quantities import Microseconds
from hermes_flow.errors import ConfigError
from hermes_flow.program.units import NS_PER_US, Ints
from hermes_flow.stages.core_time import linear_ns
from hermes_flow.workload.traces.files import open_trace

_SIZES = ("tokens", "size")
_TIMES = {"time_ns": 1e-3, "time_us": 1.0, "time_ms": 1e3, "time_s": 1e6}


@dataclass(frozen=True, slots=True)
class _Line:
    fixed_us: Microseconds = 0.0
    per_token_us: Microseconds = 0.0


@dataclass(frozen=True, slots=True)
class _Table:
    path: str
    where: dict[str, Any] = field(default_factory=dict)


def measured_ns(given: Mapping[str, Any], tokens: Ints, key: str) -> Ints:
    """Return the time of each task of ``tokens``, in nanoseconds; ``key`` is the key of ``given``.

    ``given`` has ``fixed_us`` and ``per_token_us``, or the ``path`` of a table with the columns ``tokens`` (or
    ``size``) and ``time_us`` (or ``_ms``, ``_s``, ``_ns``), of whose rows those count that have the values of
    ``where``. The median time of each size counts, and times between two sizes lie on a line. A table of one size has
    one time for all tasks. Raises ConfigError where a size is beyond those of the table.
    """
    if "path" not in given:
        line = convert(_Line, given, key)
        if not line.fixed_us and not line.per_token_us:
            raise ConfigError(key, "gives no time; expected fixed_us and per_token_us, or path")
        return linear_ns(line.fixed_us, line.per_token_us, tokens)
    table = convert(_Table, given, key)
    sizes, times_us = _medians(table, key)
    if len(sizes) == 1:
        return np.full_like(tokens, round(float(times_us[0]) * NS_PER_US))
    beyond = tokens[(tokens < sizes[0]) | (tokens > sizes[-1])]
    if len(beyond):
        has = f"{table.path} has sizes from {sizes[0]:,.0f} to {sizes[-1]:,.0f}"
        raise ConfigError(f"{key}.path", f"a task has {beyond[0]:,} tokens, and {has}")
    ns: Ints = np.rint(np.interp(tokens, sizes, times_us) * NS_PER_US).astype(np.int64)
    return ns


def _medians(table: _Table, key: str) -> tuple[Any, Any]:
    """Return the sizes of a table in order, and the median time of each in microseconds."""
    import polars as pl

    file = open_trace(table.path)
    frame = file.table(file.names, None)
    for column, value in table.where.items():
        if column not in frame.columns:
            raise ConfigError(f"{key}.where.{column}", f"no such column; it has {', '.join(frame.columns)}")
        frame = frame.filter(pl.col(column).cast(pl.String) == str(value))
    size = next((name for name in _SIZES if name in frame.columns), None)
    time = next((name for name in _TIMES if name in frame.columns), None)
    if size is None or time is None or not len(frame):
        missing = "has no such rows" if size and time else "needs the columns tokens and time_us"
        raise ConfigError(f"{key}.path", f"{table.path} {missing}; it has {', '.join(frame.columns)}")
    sizes = frame[size].cast(pl.Float64, strict=False).to_numpy()
    times = frame[time].cast(pl.Float64, strict=False).to_numpy() * _TIMES[time]
    wrong = np.flatnonzero(~(np.isfinite(sizes) & np.isfinite(times) & (times >= 0) & (sizes >= 0)))
    if len(wrong):
        problem = f"{table.path}: measurement {wrong[0] + 1} has no size and time of 0 or more"
        raise ConfigError(f"{key}.path", problem)
    known = np.unique(sizes)
    return known, np.array([np.median(times[sizes == one]) for one in known])
