"""Cuts a recording into ranges of requests, so that long runs are worked through piece by piece.

A piece is a Recording of its own, whose columns are views of the whole. Its program has only the requests of the
range; clients, links and the end of the run stay those of the whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import numpy as np

from hermes_flow.metrics.energy import Energies
from hermes_flow.recording.recording import Recording

ROWS = 1 << 18
"""The requests of a piece; a run of no more is one piece."""

T = TypeVar("T")


def ranges(count: int, rows: int = ROWS) -> Iterator[tuple[int, int]]:
    """Yield the ranges of ``count`` requests, of ``rows`` each; one range where there are none."""
    for first in range(0, max(count, 1), rows):
        yield first, min(count, first + rows)


def pieces(recording: Recording, rows: int = ROWS) -> Iterator[tuple[int, Recording]]:
    """Yield the recording in pieces, each with the number of its first request; a short one as it is."""
    count = len(recording.status)
    if count <= rows:
        yield 0, recording
        return
    for first, last in ranges(count, rows):
        yield first, rows_of(recording, first, last)


def rows_of(recording: Recording, first: int, last: int) -> Recording:
    """Return the requests ``first`` … ``last − 1`` of a recording."""
    count, program = len(recording.status), recording.program
    cut = replace(
        program,
        requests=_cut(program.requests, count, first, last),
        ops=tuple(_cut(op, count, first, last) for op in program.ops),
        rejected=_within(program.rejected, first, last),
    )
    return replace(
        recording,
        program=cut,
        arrival_ns=recording.arrival_ns[first:last],
        finish_ns=recording.finish_ns[first:last],
        status=recording.status[first:last],
        ops=tuple(_cut(record, count, first, last) for record in recording.ops),
        failures=_within(recording.failures, first, last),
        retried=_within(recording.retried, first, last),
        admitted_ns=None if recording.admitted_ns is None else recording.admitted_ns[first:last],
        tries=None if recording.tries is None else recording.tries[first:last],
    )


def energies_of(energy: Energies, first: int, last: int) -> Energies:
    """Return the energies of the requests ``first`` … ``last − 1``; those of the clients stay."""
    return replace(
        energy,
        stages_j=tuple(column[first:last] for column in energy.stages_j),
        unknown=energy.unknown[first:last],
    )


def _within(by_request: dict[int, Any], first: int, last: int) -> dict[int, Any]:
    return {request - first: value for request, value in by_request.items() if first <= request < last}


def _cut(whole: T, count: int, first: int, last: int) -> T:
    """Return a dataclass with the rows of a range in place of all its columns, also those of its parts."""
    changed: dict[str, Any] = {}
    for field in fields(whole):  # type: ignore[arg-type]
        value = getattr(whole, field.name)
        if isinstance(value, np.ndarray) and len(value) == count:
            changed[field.name] = value[first:last]
        elif field.name == "data":
            changed["data"] = tuple(_cut(edge, count, first, last) for edge in value)
        elif field.name in ("work", "kv") and is_dataclass(value):
            changed[field.name] = _cut(value, count, first, last)
    return replace(whole, **changed) if changed else whole  # type: ignore[type-var]
