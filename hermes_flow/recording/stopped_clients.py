"""Ends the records of clients that stopped, and joins those that followed each other in one place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hermes_flow.program.units import PS_PER_NS, Ints
from hermes_flow.recording.client_states import States
from hermes_flow.recording.links import joined
from hermes_flow.recording.recording import ClientRecord

_START, _END, _STEPS, _DECODES, _CONTEXT, _PREFILL, _JOINED = range(7)


def as_one_client(
    stopped: Sequence[tuple[ClientRecord, int]], present: ClientRecord | None, states: States
) -> ClientRecord:
    """Return one record for clients that have stopped, each with the instant in ns, and the one that runs, if any.

    Steps that were in progress when a client stopped end with it, and have given no token.
    """
    records = [until(record, at_ns) for record, at_ns in stopped]
    if present is not None:
        records.append(present)
    first = records[0]
    if len(records) == 1:
        return replace(first, states=tuple(states))
    lanes = [record.lanes() for record in records]
    merged = [np.concatenate(own) for own in zip(*lanes, strict=True)] if first.segments is not None else []
    return replace(
        first,
        tasks=sum(record.tasks for record in records),
        busy_ns=sum(record.busy_ns for record in records),
        segments=np.concatenate(merged) if merged else None,
        lane_rows=tuple(len(rows) for rows in merged) if len(merged) > 1 else (),
        rank_segments=tuple(
            np.concatenate(own) for own in zip(*[record.rank_segments for record in records], strict=True)
        ),
        resume_gaps_ps=_joined([record.resume_gaps_ps for record in records]),
        even_gaps=_joined([record.even_gaps for record in records]),
        kv_peak_blocks=max(record.kv_peak_blocks for record in records),
        prefill_pairs=math.fsum(record.prefill_pairs for record in records),
        passes=_sum([record.passes for record in records]),
        own=_own([record.own for record in records]),
        links=joined([link for record in records for link in record.links]),
        states=tuple(states),
    )


def until(record: ClientRecord, at_ns: int) -> ClientRecord:
    """Return the record of a client that stopped at ``at_ns``, without what its steps would have done later.

    Engines that overlap run a last step in vain, because they plan it before they know that all answers are over.
    """
    if record.segments is None:  # a pass or a task that nobody waits for any more goes on to its end
        return replace(record, busy_ns=min(record.busy_ns, record.capacity * at_ns))
    at_ps = (at_ns + 1) * PS_PER_NS - 1  # what ends within the nanosecond has left the client
    lanes = record.lanes()
    if not any(len(rows) and int(rows[:, _END].max()) > at_ps for rows in lanes):
        return record
    kept = [_cut_rows(rows, at_ps, record.context_ps) for rows in lanes]
    if len(lanes) == 1:
        busy_ns = int((kept[0][:, _END] - kept[0][:, _START]).sum()) // PS_PER_NS
    else:  # micro-batches overlap, and the last of them ends the work without a pause
        busy_ns = (
            record.busy_ns - (max(int(rows[:, _END].max(initial=0)) for rows in lanes) - at_ps) // PS_PER_NS
        )
    return replace(
        record,
        busy_ns=max(0, busy_ns),
        segments=np.concatenate(kept),
        lane_rows=tuple(len(rows) for rows in kept) if record.lane_rows else (),
        rank_segments=tuple(_cut_rows(rows, at_ps, record.context_ps) for rows in record.rank_segments),
    )


def _joined(columns: Sequence[Ints | None]) -> Ints | None:
    known = [column for column in columns if column is not None]
    return np.concatenate(known) if known else None


def _own(owns: Sequence[Any]) -> Any:
    """Return what only its kind reads of all of them, where it can be joined."""
    return owns[0].joined(owns) if hasattr(owns[0], "joined") else owns[0]


def _sum(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _cut_rows(rows: NDArray[np.int64], at_ps: int, context_ps: int) -> NDArray[np.int64]:
    """Return the rows until ``at_ps``; the whole steps of a stretch stay, and the one in progress gives nothing."""
    over = rows[:, _END] <= at_ps
    kept: list[NDArray[np.int64]] = []
    for row in rows[~over & (rows[:, _START] < at_ps)]:
        steps, decodes = int(row[_STEPS]), int(row[_DECODES])
        growth = context_ps * decodes
        each = (int(row[_END] - row[_START]) - growth * (steps * (steps - 1) // 2)) // max(steps, 1)
        at, whole = int(row[_START]), 0
        while whole < steps and at + each + growth * whole <= at_ps:
            at += each + growth * whole
            whole += 1
        if whole:
            done = row.copy()
            done[_END], done[_STEPS] = at, whole
            kept.append(done)
        if at < at_ps:
            kept.append(np.array([at, at_ps, 1, 0, 0, 0, 0], dtype=np.int64))
    return np.concatenate([rows[over], np.array(kept, dtype=np.int64).reshape(-1, rows.shape[1])])
