"""From a machine that has run to a Recording: everything that happened, as columns."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hermes_flow.machine.build import AnyClient, AnyTasks
from hermes_flow.machine.coordinator import Coordinator
from hermes_flow.pools.batched.client import BatchedClient, BatchedTasks
from hermes_flow.pools.memory.client import MemoryClient, MemoryTasks
from hermes_flow.pools.sequential.client import SequentialClient, SequentialTasks
from hermes_flow.program.kv_store import MemoryClientSpec
from hermes_flow.program.ops import Op
from hermes_flow.program.pools import AnyClientSpec
from hermes_flow.program.program import Program
from hermes_flow.program.units import PS_PER_NS, Ints
from hermes_flow.recording.recording import ClientRecord, OpRecord, Recording, TierRecord


@dataclass(frozen=True, slots=True)
class Ran:
    """What has run: by pool its tasks, its clients and where each op's tasks begin; and the engine's events."""

    program: Program
    coordinator: Coordinator
    arrival_ns: Ints
    tasks: list[AnyTasks]
    clients: list[list[AnyClient]]
    offsets: list[dict[int, int]]
    events: int


def gather(ran: Ran, wall_s: float, cpu_s: float) -> Recording:
    """Return everything that happened as columns."""
    program = ran.program
    clients = tuple(
        _record_client(pool, client, program.pools[pool].client)
        for pool, clients in enumerate(ran.clients)
        for client in clients
    )
    return replace(
        gather_requests(ran),
        clients=clients,
        links=() if ran.coordinator.fabric is None else ran.coordinator.fabric.records(),
        events=ran.events + sum(c.segments.shape[0] for c in clients if c.segments is not None),
        wall_s=wall_s,
        cpu_s=cpu_s,
    )


def gather_requests(ran: Ran) -> Recording:
    """Return what happened to the requests, without clients and links."""
    program = ran.program
    arrival = ran.arrival_ns
    ops: list[OpRecord] = []
    for number, op in enumerate(program.ops):
        record = _record_op(ran, number, op)
        ops.append(record if op.kv_from is None else _with_transfer(ran, number, record, ops[op.kv_from]))
    status = np.zeros(len(program.requests), dtype=np.int8)
    status[list(program.rejected)] = 1
    finish = _finish_ns(program, tuple(ops), arrival)
    return Recording(
        program=program,
        arrival_ns=arrival,
        finish_ns=finish,
        status=status,
        ops=tuple(ops),
        clients=(),
        end_ns=int(max(finish.max(initial=0), arrival.max(initial=0))),
        events=ran.events,
        wall_s=0.0,
        cpu_s=0.0,
        failures=dict(program.rejected),
    )


def _with_transfer(ran: Ran, number: int, record: OpRecord, prefill: OpRecord) -> OpRecord:
    """Add what moved; a request that needs no decode is answered by the prefill's token."""
    op = ran.program.ops[number]
    assert record.first_ns is not None
    assert op.kv_bytes is not None
    delivered = np.array(ran.coordinator.delivered_ns[number], dtype=np.int64)
    here = record.client >= 0
    return replace(
        record,
        first_ns=np.where(here, record.first_ns, prefill.finish_ns),
        finish_ns=np.where(here, record.finish_ns, prefill.finish_ns),
        transfer_ns=np.where(here, delivered - record.ready_ns, 0),
        bytes=np.where(here, op.kv_bytes, 0),
        cached_tokens=np.zeros_like(op.kv_bytes),  # what was sent was not found
    )


def _record_op(ran: Ran, number: int, op: Op) -> OpRecord:
    count = len(ran.program.requests)
    first = ran.offsets[op.pool][number]
    rows = slice(first, first + count)
    tasks = ran.tasks[op.pool]
    client = np.array(ran.coordinator.client[number], dtype=np.int64)
    ready = np.array(ran.coordinator.ready_ns[number], dtype=np.int64)
    if isinstance(tasks, MemoryTasks):
        start, finish, read = (
            np.array(column[rows], dtype=np.int64) for column in (tasks.start_ns, tasks.finish_ns, tasks.read)
        )
        return OpRecord(client, ready, start, finish, bytes=read)
    if isinstance(tasks, SequentialTasks | BatchedTasks):
        start = np.array(tasks.start_ns[rows], dtype=np.int64)
        return OpRecord(client, ready, start, np.array(tasks.finish_ns[rows], dtype=np.int64))
    return OpRecord(
        client=client,
        ready_ns=ready,
        start_ns=_nanoseconds(tasks.start_ps[rows]),
        finish_ns=_nanoseconds(tasks.finish_ps[rows]),
        first_ns=_nanoseconds(tasks.first_ps[rows]),
        preemptions=_per_request(tasks.preemptions, first, count),
        cached_tokens=_per_request(tasks.cached, first, count),
    )


def _per_request(by_task: dict[int, int], first: int, count: int) -> Ints:
    """The figures of tasks ``first`` … ``first + count − 1`` as a column; 0 where there is none."""
    column = np.zeros(count, dtype=np.int64)
    for task, value in by_task.items():
        if first <= task < first + count:
            column[task - first] = value
    return column


def _nanoseconds(picoseconds: list[int]) -> Ints:
    return np.floor_divide(np.array(picoseconds, dtype=np.int64), PS_PER_NS)


def _finish_ns(program: Program, ops: tuple[OpRecord, ...], arrival: Ints) -> Ints:
    """When each request's last op is done; a skipped op is done when it could have begun.

    Other ops may begin with a token of an answer, and end before that does.
    """
    ends: list[Ints] = []
    for op, record in zip(program.ops, ops, strict=True):
        before = np.maximum.reduce([ends[index] for index in op.after]) if op.after else arrival
        ends.append(np.where(record.client >= 0, record.finish_ns, before))
    followed = {before for op in program.ops for before in op.after if op.at_token is None}
    finish: Ints = np.maximum.reduce([end for index, end in enumerate(ends) if index not in followed])
    if program.rejected:
        finish = finish.copy()
        finish[list(program.rejected)] = -1
    return finish


def _record_tiers(client: MemoryClient, spec: AnyClientSpec) -> tuple[TierRecord, ...]:
    assert isinstance(spec, MemoryClientSpec)
    records = []
    for tier, held, totals in zip(spec.tiers, client.tiers(), client.totals, strict=True):
        record = TierRecord(tier.name, totals.hits, totals.read, totals.written)
        if client.index % tier.shared_by == 0:
            record = replace(record, demoted=held.demoted, dropped=held.dropped, peak_bytes=held.peak)
        records.append(record)
    return tuple(records)


def _record_client(pool: int, client: AnyClient, spec: AnyClientSpec) -> ClientRecord:
    if isinstance(client, SequentialClient):
        return ClientRecord(pool, client.index, client.cores, client.served, client.busy_ns)
    if isinstance(client, BatchedClient):
        return ClientRecord(pool, client.index, 1, client.served, client.busy_ns, passes=client.steps)
    if isinstance(client, MemoryClient):
        return ClientRecord(
            *(pool, client.index, 1, client.served, client.busy_ns),
            tiers=_record_tiers(client, spec),
            misses=client.misses,
        )
    lanes = client.lanes()
    return ClientRecord(
        pool=pool,
        client=client.index,
        capacity=1,
        tasks=client.served,
        busy_ns=client.busy_ps // PS_PER_NS,
        segments=np.concatenate(lanes) if len(lanes) > 1 else lanes[0],
        lane_rows=tuple(len(rows) for rows in lanes) if len(lanes) > 1 else (),
        resume_gaps_ps=np.array(client.batches[0].resume_gaps_ps, dtype=np.int64),
        kv_peak_blocks=max(batch.peak for batch in client.batches),
        prefill_pairs=0.5 * client.twice_pairs,
    )
