"""Measures how long requests waited or were served, by stage, pool and cause, within a window of their time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hermes_flow.metrics.critical_path import ops_on_path
from hermes_flow.metrics.why.causes import Part
from hermes_flow.metrics.why.clients import Clients
from hermes_flow.metrics.why.llm_timeline import Floats
from hermes_flow.metrics.why.op_parts import OpTasks, by_client, op_parts
from hermes_flow.metrics.why.windows import Window
from hermes_flow.program.held_contexts import holding_readers
from hermes_flow.program.units import Ints
from hermes_flow.recording.recording import OpRecord, Recording


def cause_times(recording: Recording, window: Window, clients: Clients) -> dict[Part, Floats]:
    """Return the seconds of each part for every request of the window; together they are the window's time."""
    on_path, until = ops_on_path(recording)
    found: dict[Part, Floats] = {}
    if recording.admitted_ns is not None and window.stage is None:
        admitted = recording.admitted_ns[window.rows]
        waited = np.minimum(admitted, window.end_ns) - np.maximum(
            recording.arrival_ns[window.rows], window.begin_ns
        )
        if recording.travel is not None:  # the gateway stands at the site
            whole = window.begin_ns == recording.arrival_ns[window.rows]
            ways = (recording.travel.out_ns + recording.travel.before_ns)[window.rows]
            waited = np.where(whole, waited - ways, waited)
        gateway = Part("gateway", recording.program.ops[0].pool, "gateway")
        found[gateway] = np.maximum(waited, 0).astype(np.float64) * 1e-9
    if recording.travel is not None and window.stage is None:
        travel, rows = recording.travel, window.rows
        whole = window.begin_ns == recording.arrival_ns[rows]  # else: from one token to a later one
        both_ns = np.where(whole, travel.both_ns[rows], 0)
        found[Part("round_trip", recording.program.ops[0].pool, "round_trip")] = both_ns * 1e-9
        if travel.before_ns.any():
            earlier = np.where(whole, travel.before_ns[rows], 0) * 1e-9
            part = Part("earlier_tries", recording.program.ops[0].pool, "earlier_tries")
            found[part] = np.asarray(earlier, dtype=np.float64)
        back = travel.back_ns[rows]
        begin = np.where(whole, window.begin_ns, window.begin_ns - back)
        window = replace(window, begin_ns=begin, end_ns=window.end_ns - back)
    for number, (op, record) in enumerate(zip(recording.program.ops, recording.ops, strict=True)):
        own = record.client[window.rows] >= 0
        if window.stage is None:
            own &= on_path[number][window.rows]
        elif window.stage not in op.stages:
            continue
        if not own.any():
            continue
        end = None if until[number] is None else until[number][window.rows]  # type: ignore[index]
        for part, times in _pool_parts(recording, number, window, own, end, clients):
            if window.stage is not None and part.stage != window.stage:
                continue
            found[part] = found.get(part, np.zeros(len(window.rows))) + times * 1e-9
    return found


def _pool_parts(
    recording: Recording,
    number: int,
    window: Window,
    own: NDArray[np.bool_],
    until: Ints | None,
    clients: Clients,
) -> Iterator[tuple[Part, Floats]]:
    """Yield the parts of one op's tasks; who waits for memory of a decode client waits on the pool of that one."""
    op, record = recording.program.ops[number], recording.ops[number]
    if record.reserved_ns is not None:
        receiver = next(other for other in recording.program.ops if other.kv and other.kv.source == number)
        reserved = np.clip(record.reserved_ns, record.ready_ns, np.maximum(record.start_ns, record.ready_ns))
        low, high = (
            np.clip(at[window.rows], window.begin_ns, window.end_ns).astype(np.float64)
            for at in (record.ready_ns, reserved)
        )
        part = Part("+".join(op.stages), receiver.pool, "kv_memory")
        yield part, np.where(own, np.maximum(high - low, 0.0), 0.0)
        record = replace(record, ready_ns=reserved)
    readers = holding_readers(recording.program, number)
    for stage, cause, times in op_parts(OpTasks(op, record, window, own, until, clients)):
        if cause == "queue" and readers:
            yield from _waits_of_readers(recording, readers[0], stage, record, window, own, clients)
        else:
            yield Part(stage, op.pool, cause), times


def _waits_of_readers(
    recording: Recording,
    reader: int,
    stage: str,
    record: OpRecord,
    window: Window,
    own: NDArray[np.bool_],
    clients: Clients,
) -> Iterator[tuple[Part, Floats]]:
    """Yield why the prompts of a retrieval had to wait for blocks on their own client."""
    pool = recording.program.ops[reader].pool
    low, high = (
        np.clip(at[window.rows], window.begin_ns, window.end_ns).astype(np.float64)
        for at in (record.ready_ns, record.start_ns)
    )
    client = np.where(own, recording.ops[reader].client[window.rows], -1)
    waits = by_client(
        client,
        (low, np.maximum(low, high)),
        lambda index, *span: clients.occupancy(pool, index).waits_ns(*span),
    )
    for cause, times in zip(("seats", "kv_memory", "transfer", "prompts_ahead"), waits, strict=False):
        yield Part(stage, pool, cause), times  # type: ignore[arg-type]
