"""Collects everything that happened in a run into a Recording, as columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hermes_flow.machine.coordinator import Coordinator
from hermes_flow.machine.given_up import until_given_up
from hermes_flow.machine.split_record import split_by_pool
from hermes_flow.pools.client import PoolClient
from hermes_flow.pools.kind import kind_called
from hermes_flow.pools.tasks import PoolTasks
from hermes_flow.program.ops import KVEdge, Op
from hermes_flow.program.program import Program
from hermes_flow.program.units import Ints
from hermes_flow.recording.links import LinkRecord
from hermes_flow.recording.recording import FAILED, ClientRecord, OpRecord, Recording
from hermes_flow.recording.travel import Travel

if TYPE_CHECKING:
    from hermes_flow.machine.elastic_pools import ElasticPools
    from hermes_flow.machine.front import Front


@dataclass(frozen=True, slots=True)
class Ran:
    """A machine after its run: the tasks and clients of each pool, the first task of each op, and the events."""

    program: Program
    coordinator: Coordinator
    arrival_ns: Ints
    tasks: Sequence[PoolTasks]
    clients: Sequence[Sequence[PoolClient]]
    offsets: list[dict[int, int]]
    events: int
    elastic: ElasticPools | None = None
    front: Front | None = None


def gather(ran: Ran, wall_s: float, cpu_s: float) -> Recording:
    """Return everything that happened as columns."""
    clients = tuple(
        record_client(ran, pool, client) for pool, clients in enumerate(ran.clients) for client in clients
    )
    return replace(
        gather_requests(ran),
        clients=clients,
        links=_links(ran, clients),
        events=ran.events + sum(c.segments.shape[0] for c in clients if c.segments is not None),
        wall_s=wall_s,
        cpu_s=cpu_s,
        **_lost(ran),
    )


def _links(ran: Ran, clients: Sequence[ClientRecord]) -> tuple[LinkRecord, ...]:
    """Return the links of the network, and those of clients to memories of their own."""
    fabric = ran.coordinator.transfers.fabric
    own = [
        replace(link, name=f"{ran.program.pools[client.pool].name}/{client.client} {link.name}")
        for client in clients
        for link in client.links
    ]
    return (*(() if fabric is None else fabric.records()), *own)


def _lost(ran: Ran) -> dict[str, Any]:
    """Return the tasks that were lost with their clients, the tries that users gave up, and what both have cost."""
    lost = None if ran.elastic is None else ran.elastic.lost_tasks
    tries = None if ran.front is None else ran.front.tries
    found: dict[str, Any] = {}
    if lost is not None:
        found = {"retried": lost.retried, "migrated": lost.migrated}
    if ran.program.retries is not None and ran.front is not None and ran.front.patience is not None:
        found["given_up"] = ran.front.patience.given_up
    known = [one for one in (lost, tries) if one is not None]
    for name in ("lost_tokens", "lost_answers", "lost_ns") if known else ():
        total: Counter[int] = Counter()
        for one in known:
            total.update(getattr(one, name))
        found[name] = dict(total)
    return found


def record_client(ran: Ran, pool: int, client: PoolClient) -> ClientRecord:
    """Return the totals of one client."""
    if ran.elastic is not None and ran.elastic.holds(pool):
        return ran.elastic.record(pool, client)
    spec = ran.program.pools[pool].client
    return kind_called(spec.kind).record(pool, spec, client)


def gather_requests(ran: Ran) -> Recording:
    """Return what happened to the requests, without clients and links."""
    program = ran.program
    arrival = ran.arrival_ns
    split = split_by_pool(program, [_record_op(ran, number, op) for number, op in enumerate(program.ops)])
    pools = tuple(replace(pool, joins=None) for pool in program.pools)
    program = replace(program, ops=tuple(own.op for own in split), pools=pools)
    ops: list[OpRecord] = []
    for own in split:
        kv = own.op.kv
        record = own.record if kv is None else _with_transfer(ran, own.number, own.record, kv, ops)
        ops.append(_with_data(ran, own.number, record) if own.op.data else record)
    status = np.zeros(len(program.requests), dtype=np.int8)
    failures = ran.coordinator.failures.reasons | program.rejected
    status[list(failures)] = FAILED
    for request, ended in ran.coordinator.failures.statuses.items():
        status[request] = ended
    finish = finish_ns(program, tuple(ops), arrival, failures)
    travel = _travel(ran)
    if travel is not None:
        finish = np.where(finish >= 0, finish + travel.back_ns, finish)
    last = [finish, arrival]
    if ran.coordinator.failures.reasons:  # what was served of these may have ended last
        last += [record.finish_ns for record in ops]
        last += [record.cut_ns for record in ops if record.cut_ns is not None]
    # A fleet decides until the last request is over, also if that is given up.
    ends = (0,) if ran.elastic is None else (0, *ran.coordinator.failures.given_up_ns.values())
    return Recording(
        program=program,
        arrival_ns=arrival,
        finish_ns=finish,
        status=status,
        ops=tuple(ops),
        clients=(),
        end_ns=max(*ends, *(int(column.max(initial=0)) for column in last)),
        events=ran.events,
        wall_s=0.0,
        cpu_s=0.0,
        failures=failures,
        travel=travel,
        **_at_the_gateway(ran),
    )


def _travel(ran: Ran) -> Travel | None:
    """Return the ways between users and sites; None without sites."""
    if ran.front is None or ran.front.sites is None:
        return None
    sites = ran.front.sites
    count = len(sites.site)
    before, moved = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
    usd = np.zeros(count)
    for column, known in ((before, sites.before_ns), (moved, sites.moved), (usd, sites.earlier_usd)):
        column[list(known)] = list(known.values())
    site, out, back = (
        np.array(column, dtype=np.int64) for column in (sites.site, sites.out_ns, sites.back_ns)
    )
    return Travel(site, out, back, before_ns=before, moved=moved, earlier_usd=usd)


def _at_the_gateway(ran: Ran) -> dict[str, Any]:
    if ran.front is None or not ran.front.gateways:
        return {}
    gateway = ran.front.gateways[0]
    admitted, tries = (np.array(column, dtype=np.int64) for column in (gateway.admitted_ns, gateway.tries))
    return {
        "admitted_ns": admitted,
        "tries": tries,
        "most_queued": max(one.most_queued for one in ran.front.gateways),
    }


def _with_transfer(
    ran: Ran, number: int, record: OpRecord, kv: KVEdge, before: Sequence[OpRecord]
) -> OpRecord:
    """Add what moved; a request that needs no decode is answered by the prefill's token."""
    prefill = before[kv.source]
    assert record.first_ns is not None
    delivered = np.array(ran.coordinator.transfers.delivered_ns[number], dtype=np.int64)
    granted = np.array(ran.coordinator.transfers.granted_ns[number], dtype=np.int64)
    routed = record.client >= 0
    here = routed & (delivered >= 0)
    moved = kv.bytes.copy()
    for request in ran.coordinator.transfers.shared_kv.requests(number):
        moved[request] = ran.coordinator.transfers.shared_kv.moved(number, request, int(kv.bytes[request]))
    return replace(
        record,
        first_ns=np.where(here, record.first_ns, prefill.finish_ns),
        finish_ns=np.where(routed, record.finish_ns, prefill.finish_ns),
        transfer_ns=np.where(here, delivered - np.maximum(record.ready_ns, granted), 0),
        bytes=np.where(here, moved, 0),
        cached_tokens=np.zeros_like(kv.bytes),  # what was sent was not found
    )


def _with_data(ran: Ran, number: int, record: OpRecord) -> OpRecord:
    """Add what earlier ops have left for it and came over the network."""
    delivered = np.array(ran.coordinator.transfers.delivered_ns[number], dtype=np.int64)
    moved = np.array(ran.coordinator.transfers.data.moved_bytes[number], dtype=np.int64)
    came = (record.client >= 0) & (delivered >= 0)
    return replace(
        record,
        transfer_ns=np.where(came, delivered - record.ready_ns, 0),
        bytes=np.where(came, moved, 0),
    )


def _record_op(ran: Ran, number: int, op: Op) -> OpRecord:
    count = len(ran.program.requests)
    first = ran.offsets[op.pool][number]
    tasks = ran.tasks[op.pool]
    client = np.array(ran.coordinator.client[number], dtype=np.int64)
    ready = np.array(ran.coordinator.ready_ns[number], dtype=np.int64)
    record = tasks.record(first, count, client, ready)
    reserved = ran.coordinator.transfers.reserved_ns(number)
    if reserved is not None:
        record = replace(record, reserved_ns=np.array(reserved, dtype=np.int64))
    given_up = ran.coordinator.failures.given_up_ns
    if not given_up:
        return record
    return until_given_up(op, record, given_up, lambda request: tasks.cut(first + request))


def finish_ns(
    program: Program, ops: tuple[OpRecord, ...], arrival: Ints, failures: Mapping[int, str]
) -> Ints:
    """Return when each request's last op is done; a skipped op is done when it could have begun.

    Other ops may begin with a token of an answer, and end before that does.
    """
    ends: list[Ints] = []
    for op, record in zip(program.ops, ops, strict=True):
        before = np.maximum.reduce([ends[index] for index in op.after]) if op.after else arrival
        ends.append(np.where(record.client >= 0, record.finish_ns, before))
    followed = {before for op in program.ops for before in op.after if op.at_token is None}
    finish: Ints = np.maximum.reduce([end for index, end in enumerate(ends) if index not in followed])
    if failures:
        finish = finish.copy()
        finish[list(failures)] = -1
    return finish
