"""Builds the machine that a Program describes, runs it, and keeps what happened."""

from __future__ import annotations

import gc
import struct
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from hermes_flow.batching import batching_policies
from hermes_flow.clients.llm import LLMClient
from hermes_flow.clients.sequential import SequentialClient, SequentialTasks
from hermes_flow.clients.tasks import BlockKeys, LLMTasks
from hermes_flow.compiler.program import PS_PER_NS, Ints, LLMClientSpec, Op, Pool, Program, Requests
from hermes_flow.coordinator.arrivals import ClosedArrivals, OpenArrivals
from hermes_flow.coordinator.coordinator import Coordinator, PoolClients
from hermes_flow.coordinator.facts import PoolFacts
from hermes_flow.coordinator.routing import Choose, RoutedPool
from hermes_flow.engine.loop import Engine, Resource
from hermes_flow.errors import HermesFlowError
from hermes_flow.metrics.recording import ClientRecord, OpRecord, Recording
from hermes_flow.network.fabric import Fabric
from hermes_flow.network.topology import Topology
from hermes_flow.workload.streams import stream

Progress = Callable[[int], None]


def run(program: Program, progress: Progress | None = None) -> Recording:
    """Simulate ``program`` to its end; ``progress`` is called with the simulated nanoseconds now and then."""
    wall, cpu = time.perf_counter(), time.process_time()
    collecting = gc.isenabled()
    gc.disable()  # nothing here is cyclic, and a run keeps millions of small objects alive
    try:
        machine = _Machine(program)
        machine.engine.run(progress)
        return machine.record(time.perf_counter() - wall, time.process_time() - cpu)
    except (struct.error, OverflowError):
        raise HermesFlowError(
            "the run goes past 106 days of simulated time, where its clock (64 bits of picoseconds) ends; "
            "simulate a shorter stretch"
        ) from None
    finally:
        if collecting:
            gc.enable()


class _Machine:
    """The engine, the coordinator and the clients of one run."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.engine = Engine()
        self.coordinator = Coordinator(program, self.engine)
        self.tasks: list[LLMTasks | SequentialTasks] = []
        self.clients: list[list[LLMClient | SequentialClient]] = []
        self.offsets: list[dict[int, int]] = []
        self._build_pools()
        self.source = self._build_source()
        self.engine.attach(self.source, self._resources())

    def _resources(self) -> list[Resource]:
        """Rank what can happen at one instant: deliveries, of tasks and of KV, before the plans of LLM clients."""
        engine, coordinator = self.engine, self.coordinator
        planners = [client for clients in self.clients for client in clients if isinstance(client, LLMClient)]
        ranked: list[Resource] = []
        for clients in self.clients:
            ranked += [client.deliveries if isinstance(client, LLMClient) else client for client in clients]
        if self.program.network is not None:
            topology = Topology(self.program.network)
            fabric = Fabric(topology, coordinator.delivered)
            coordinator.connect(topology, fabric, rank=len(ranked))
            ranked.append(fabric)
        place = len(ranked)
        for number, pool in enumerate(coordinator.pools):
            pool.first_rank = pool.first_number
            if isinstance(self.program.pools[number].client, LLMClientSpec):
                pool.first_rank = place
                place += len(pool.clients)
                for index, client in enumerate(self.clients[number]):
                    assert isinstance(client, LLMClient)
                    client.on_plan = partial(engine.reschedule, pool.first_number + index)
        return ranked + planners

    def _build_pools(self) -> None:
        program = self.program
        followed = {before for op in program.ops for before in op.after}
        closed = program.requests.concurrency is not None
        count = len(program.requests)
        pools: list[PoolClients] = []
        ops_of: list[list[int]] = []
        number = 0
        for index, pool in enumerate(program.pools):
            ops = [number for number, op in enumerate(program.ops) if op.pool == index]
            notify = closed or any(number in followed for number in ops)
            ops_of.append(ops)
            offsets = {number: place * count for place, number in enumerate(ops)}
            pools.append(PoolClients(number, notify, offsets, group_size=pool.count // pool.groups))
            number += pool.count
        for index, pool in enumerate(program.pools):
            done = self.coordinator.done(ops_of[index])
            tasks, clients = _clients(
                pool,
                [program.ops[number] for number in ops_of[index]],
                done,
                program.requests,
                notify=pools[index].notify,
            )
            self.tasks.append(tasks)
            self.clients.append(clients)
            pools[index].attach(clients, self._choices(index, ops_of[index]))
        self.offsets = [pool.offsets for pool in pools]
        self.coordinator.attach(pools, self._receive_kv)

    def _choices(self, index: int, ops: list[int]) -> list[Choose]:
        """Return the choice among a pool's clients, one for each group where KV comes to it."""
        program, pool, tasks = self.program, self.program.pools[index], self.tasks[index]
        receives = [program.ops[number].kv_from is not None for number in ops]
        groups = pool.groups if any(receives) else 1
        size = pool.count // groups
        if size == 1:
            return [lambda task, now_ns: 0] * groups
        facts = PoolFacts(
            program.requests,
            tasks if isinstance(tasks, LLMTasks) else None,
            pool.client.block_size if isinstance(pool.client, LLMClientSpec) else 1,
        )
        choices = []
        for group in range(groups):
            if any(receives):
                facts = facts.with_transfers(self.coordinator.transfer_times(ops, first=group * size))
            rng = stream(program.seed, f"routing:{pool.name}" + (f":{group}" if group else ""))
            clients = self.clients[index][group * size : (group + 1) * size]
            choices.append(pool.routing.start(RoutedPool(clients, rng, facts)))
        return choices

    def _receive_kv(self, number: int, request: int) -> None:
        """The KV of a decode's prompt is on its client: the task goes on from the prefill's token."""
        op = self.program.ops[number]
        assert op.kv_from is not None
        prefill = self.program.ops[op.kv_from]
        ours, theirs = self.tasks[op.pool], self.tasks[prefill.pool]
        assert isinstance(ours, LLMTasks)
        assert isinstance(theirs, LLMTasks)
        task = self.offsets[op.pool][number] + request
        ours.kept[task] = ours.prompt[task]
        ours.generated[task] = 1
        ours.first_ps[task] = theirs.first_ps[self.offsets[prefill.pool][op.kv_from] + request]

    def _build_source(self) -> OpenArrivals | ClosedArrivals:
        requests = self.program.requests
        skipped = set(self.program.rejected)
        if requests.concurrency is None:
            return OpenArrivals(requests.arrival_ns.tolist(), skipped, self.coordinator.arrive)
        think_ns = requests.think_ns if requests.think_ns is not None else np.zeros(len(requests), np.int64)
        source = ClosedArrivals(requests.concurrency, think_ns.tolist(), skipped, self.coordinator.arrive)
        self.coordinator.on_finish = source.finished
        return source

    def record(self, wall_s: float, cpu_s: float) -> Recording:
        """Return everything that happened as columns."""
        program = self.program
        arrival = program.requests.arrival_ns
        if isinstance(self.source, ClosedArrivals):
            arrival = np.array(self.source.arrival_ns, dtype=np.int64)
        ops: list[OpRecord] = []
        for number, op in enumerate(program.ops):
            record = self._record_op(number, op)
            ops.append(record if op.kv_from is None else self._with_transfer(number, record, ops[op.kv_from]))
        status = np.zeros(len(program.requests), dtype=np.int8)
        status[list(program.rejected)] = 1
        finish = _finish_ns(program, tuple(ops), arrival)
        clients = tuple(
            _record_client(pool, client) for pool, clients in enumerate(self.clients) for client in clients
        )
        return Recording(
            program=program,
            arrival_ns=arrival,
            finish_ns=finish,
            status=status,
            ops=tuple(ops),
            clients=clients,
            links=() if self.coordinator.fabric is None else self.coordinator.fabric.records(),
            end_ns=int(max(finish.max(initial=0), arrival.max(initial=0))),
            events=self.engine.events + sum(c.segments.shape[0] for c in clients if c.segments is not None),
            wall_s=wall_s,
            cpu_s=cpu_s,
            failures=dict(program.rejected),
        )

    def _with_transfer(self, number: int, record: OpRecord, prefill: OpRecord) -> OpRecord:
        """Add what moved; a request that needs no decode is answered by the prefill's token."""
        op = self.program.ops[number]
        assert record.first_ns is not None
        assert op.kv_bytes is not None
        delivered = np.array(self.coordinator.delivered_ns[number], dtype=np.int64)
        here = record.client >= 0
        return replace(
            record,
            first_ns=np.where(here, record.first_ns, prefill.finish_ns),
            finish_ns=np.where(here, record.finish_ns, prefill.finish_ns),
            transfer_ns=np.where(here, delivered - record.ready_ns, 0),
            bytes=np.where(here, op.kv_bytes, 0),
        )

    def _record_op(self, number: int, op: Op) -> OpRecord:
        count = len(self.program.requests)
        first = self.offsets[op.pool][number]
        rows = slice(first, first + count)
        tasks = self.tasks[op.pool]
        client = np.array(self.coordinator.client[number], dtype=np.int64)
        ready = np.array(self.coordinator.ready_ns[number], dtype=np.int64)
        if isinstance(tasks, SequentialTasks):
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


def _clients(
    pool: Pool, ops: list[Op], done: Callable[[int, int], None], requests: Requests, *, notify: bool
) -> tuple[LLMTasks | SequentialTasks, list[LLMClient | SequentialClient]]:
    spec = pool.client
    clients: list[LLMClient | SequentialClient]
    if isinstance(spec, LLMClientSpec):
        policy = batching_policies.find(spec.batching, "batching")
        tasks = LLMTasks(
            prompt=_column([op.prompt for op in ops]),
            output=_column([op.output for op in ops]),
            priority=None if requests.priority is None else _column([requests.priority] * len(ops)),
            block_keys=_block_keys(requests),
        )
        clients = [LLMClient(i, spec, tasks, policy(), done, notify=notify) for i in range(pool.count)]
        return tasks, clients
    demands = SequentialTasks(_column([op.service_ns for op in ops]))
    clients = [SequentialClient(i, spec, demands, done, notify=notify) for i in range(pool.count)]
    return demands, clients


def _block_keys(requests: Requests) -> BlockKeys | None:
    prefixes = requests.prefixes
    if prefixes is None:
        return None
    count = len(requests)
    return lambda task, block_size, prompt: prefixes.block_keys(task % count, block_size, prompt)


def _column(columns: list[Ints | None]) -> list[int]:
    return [value for column in columns if column is not None for value in column.tolist()]


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
    """When each request's last op is done; a skipped op is done when it could have begun."""
    ends: list[Ints] = []
    for op, record in zip(program.ops, ops, strict=True):
        before = np.maximum.reduce([ends[index] for index in op.after]) if op.after else arrival
        ends.append(np.where(record.client >= 0, record.finish_ns, before))
    followed = {before for op in program.ops for before in op.after}
    finish: Ints = np.maximum.reduce([end for index, end in enumerate(ends) if index not in followed])
    if program.rejected:
        finish = finish.copy()
        finish[list(program.rejected)] = -1
    return finish


def _record_client(pool: int, client: LLMClient | SequentialClient) -> ClientRecord:
    if isinstance(client, SequentialClient):
        return ClientRecord(pool, client.index, client.cores, client.served, client.busy_ns)
    segments = client.segments()
    busy_ps = int((segments[:, 1] - segments[:, 0]).sum())
    return ClientRecord(
        pool=pool,
        client=client.index,
        capacity=1,
        tasks=client.served,
        busy_ns=busy_ps // PS_PER_NS,
        segments=segments,
        resume_gaps_ps=np.array(client.batch.resume_gaps_ps, dtype=np.int64),
        kv_peak_blocks=client.batch.peak,
    )
