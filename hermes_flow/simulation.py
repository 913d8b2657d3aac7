"""Builds the machine that a Program describes, runs it, and keeps what happened."""

from __future__ import annotations

import gc
import struct
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from hermes_flow.clients.build import AnyClient, AnyTasks, build_clients
from hermes_flow.clients.sequential import SequentialClient
from hermes_flow.clients.tasks import LLMTasks
from hermes_flow.compiler.program import (
    LLMClientSpec,
    Program,
)
from hermes_flow.coordinator.arrivals import ClosedArrivals, OpenArrivals, SessionArrivals
from hermes_flow.coordinator.coordinator import Coordinator, PoolClients
from hermes_flow.coordinator.facts import PoolFacts
from hermes_flow.coordinator.routing import Choose, Routable, RoutedPool, start
from hermes_flow.coordinator.scrape import Scrape
from hermes_flow.engine.loop import Engine, Resource
from hermes_flow.errors import HermesFlowError
from hermes_flow.metrics.gather import Ran, gather
from hermes_flow.metrics.recording import Recording
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
        self.tasks: list[AnyTasks] = []
        self.clients: list[list[AnyClient]] = []
        self.offsets: list[dict[int, int]] = []
        self.scrapes: list[Scrape] = []
        self._build_pools()
        self.source = self._build_source()
        self.engine.attach(self.source, self._resources())

    def _resources(self) -> list[Resource]:
        """Rank what can happen at one instant: deliveries, of tasks and of KV, before the plans of LLM clients."""
        engine, coordinator = self.engine, self.coordinator
        planners = [
            client
            for clients in self.clients
            for client in clients
            if not isinstance(client, SequentialClient)
        ]
        ranked: list[Resource] = []
        for clients in self.clients:
            ranked += [
                client.deliveries if not isinstance(client, SequentialClient) else client
                for client in clients
            ]
        if self.program.network is not None:
            topology = Topology(self.program.network)
            fabric = Fabric(topology, coordinator.delivered)
            coordinator.connect(topology, fabric, rank=len(ranked))
            ranked.append(fabric)
        for scrape in self.scrapes:
            scrape.on_wake = partial(engine.reschedule, len(ranked))
            ranked.append(scrape)
        place = len(ranked)
        for number, pool in enumerate(coordinator.pools):
            pool.first_rank = pool.first_number
            if isinstance(self.program.pools[number].client, LLMClientSpec):
                pool.first_rank = place
                place += len(pool.clients)
                for index, client in enumerate(self.clients[number]):
                    assert not isinstance(client, SequentialClient)
                    client.on_plan = partial(engine.reschedule, pool.first_number + index)
        return ranked + planners

    def _build_pools(self) -> None:
        program = self.program
        followed = {before for op in program.ops for before in op.after}
        waited_for = program.requests.wait_for_answers
        count = len(program.requests)
        pools: list[PoolClients] = []
        ops_of: list[list[int]] = []
        number = 0
        for index, pool in enumerate(program.pools):
            ops = [number for number, op in enumerate(program.ops) if op.pool == index]
            notify = waited_for or any(number in followed for number in ops)
            ops_of.append(ops)
            offsets = {number: place * count for place, number in enumerate(ops)}
            pools.append(PoolClients(number, notify, offsets, group_size=pool.count // pool.groups))
            number += pool.count
        for index in range(len(program.pools)):
            done, begun = self.coordinator.done(ops_of[index]), self.coordinator.begun(ops_of[index])
            tasks, clients = build_clients(
                program, index, ops_of[index], done, begun, notify=pools[index].notify
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
        llm = pool.client if isinstance(pool.client, LLMClientSpec) else None
        facts = PoolFacts(
            program.requests,
            tasks if isinstance(tasks, LLMTasks) else None,
            1 if llm is None else llm.block_size,
        )
        kv_blocks = None if llm is None else llm.kv_blocks
        routed: Sequence[Routable] = self.clients[index]
        scrape = Scrape(routed, pool.routing_stale_ns) if pool.routing_stale_ns else None
        if scrape is not None:
            self.scrapes.append(scrape)
            routed = scrape.clients
        choices = []
        for group in range(groups):
            if any(receives):
                facts = facts.with_transfers(self.coordinator.transfer_times(ops, first=group * size))
            rng = stream(program.seed, f"routing:{pool.name}" + (f":{group}" if group else ""))
            clients = routed[group * size : (group + 1) * size]
            choose = start(pool.routing, RoutedPool(clients, rng, facts, kv_blocks))
            choices.append(choose if scrape is None else scrape.waking(choose))
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

    def _build_source(self) -> OpenArrivals | ClosedArrivals | SessionArrivals:
        requests, arrive = self.program.requests, self.coordinator.arrive
        first_ns = requests.arrival_ns.tolist()
        skipped = set(self.program.rejected)
        if not requests.wait_for_answers:
            return OpenArrivals(first_ns, skipped, arrive)
        think = requests.think_ns if requests.think_ns is not None else np.zeros(len(requests), np.int64)
        think_ns = think.tolist()
        source: ClosedArrivals | SessionArrivals
        if requests.concurrency is not None:
            source = ClosedArrivals(requests.concurrency, think_ns, skipped, arrive)
        else:
            assert requests.previous is not None
            source = SessionArrivals(first_ns, requests.previous.tolist(), think_ns, skipped, arrive)
        self.coordinator.on_finish = source.finished
        return source

    def record(self, wall_s: float, cpu_s: float) -> Recording:
        """Return everything that happened."""
        arrival = self.program.requests.arrival_ns
        if not isinstance(self.source, OpenArrivals):
            arrival = np.array(self.source.arrival_ns, dtype=np.int64)
        ran = Ran(
            self.program,
            self.coordinator,
            arrival,
            self.tasks,
            self.clients,
            self.offsets,
            self.engine.events,
        )
        return gather(ran, wall_s, cpu_s)
