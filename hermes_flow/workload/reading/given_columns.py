"""Builds the format that ``workload.columns`` describes by the file's own names of columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from hermes_flow.errors import ConfigError, did_you_mean
from hermes_flow.workload.reading.clock import CLOCKS, unit_of_name
from hermes_flow.workload.traces.cells import Clock
from hermes_flow.workload.traces.format import Column, TraceFormat
from hermes_flow.workload.traces.native import Native

if TYPE_CHECKING:
    from hermes_flow.workload.traces.files import TraceFile

_OPEN = {"arrival": "arrival_ns", "delay": "delay_ns"}  # names without a unit


def with_given_columns(
    base: type[TraceFormat], given: Mapping[str, str], time_unit: str | None, file: TraceFile
) -> type[TraceFormat]:
    """Return ``base`` with the columns of ``given``, by our names, read from the file's columns.

    Raises ConfigError where a name is not ours, or not in the file.
    """
    ours = {column.name: column for column in Native.columns}
    mapped = [
        _column(name, of, ours, time_unit, file)
        for name, of in given.items()
        if _require(name, of, ours, file)
    ]
    filled = [column.fills for column in mapped]
    twice = [name for name, column in zip(given, mapped, strict=True) if filled.count(column.fills) > 1]
    if twice:
        raise ConfigError(
            "workload.columns", f"{' and '.join(twice)} are the same quantity; give one of them"
        )
    kept = [column for column in base.columns if column.fills not in filled]
    columns = (*kept, *mapped)

    class Given:
        """The format of the file by ``workload.columns``."""

        from_first = base.from_first
        prefix_block_tokens = base.prefix_block_tokens
        known = getattr(base, "known", ())

    Given.columns = columns  # type: ignore[attr-defined]
    return Given  # type: ignore[return-value]


def _require(name: str, of: str, ours: Mapping[str, Column], file: TraceFile) -> bool:
    if name not in ours and name not in _OPEN:
        raise ConfigError(f"workload.columns.{name}", f"unknown column{did_you_mean(name, [*ours, *_OPEN])}")
    if of not in file.names and not file.any_line_may_add_columns:
        near = did_you_mean(of, file.names)
        raise ConfigError(f"workload.columns.{name}", f"{file.path} has no column {of!r}{near}")
    return True


def _column(name: str, of: str, ours: Mapping[str, Column], time_unit: str | None, file: TraceFile) -> Column:
    if name in ours:
        column = replace(ours[name], name=of)
        unit = unit_of_name(of)
        own = next((unit for unit, clock in CLOCKS.items() if clock == column.cells), None)
        if own is not None and unit not in (None, own):
            problem = f"{of}: its name says {unit}, and {name} is in {own}"
            raise ConfigError(f"workload.columns.{name}", problem)
        return column
    unit = unit_of_name(of)
    clock = CLOCKS[unit or "s"]
    if name == "arrival":
        return Column(of, "arrival_ns", clock, unit="open" if unit is None else "named")
    if unit is None and time_unit is None:
        problem = f"{of} has no unit in its name; expected delay_s, _ms, _us or _ns, or workload.time_unit"
        raise ConfigError("workload.columns.delay", problem)
    return Column(of, "delay_ns", clock if unit else _clock(time_unit), blank=-1)


def _clock(unit: str | None) -> Clock:
    return CLOCKS[unit or "s"]
