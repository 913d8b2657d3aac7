"""Builds the machine of a Program, runs it and returns its recording."""

from __future__ import annotations

import gc
import struct
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, cast

import numpy as np

from hermes_flow.config.plugin_faults import plugin_fault
from hermes_flow.errors import HermesFlowError
from hermes_flow.machine.arrivals import (
    AheadArrivals,
    ClosedArrivals,
    KnownArrivals,
    OpenArrivals,
    SessionArrivals,
)
from hermes_flow.machine.build import build_clients
from hermes_flow.machine.context_handover import Carry, Contexts
from hermes_flow.machine.coordinator import Coordinator
from hermes_flow.machine.engine import ARRIVALS_PER_SETTLE, Engine
from hermes_flow.machine.host_ahead import HostAhead, host_ahead
from hermes_flow.machine.network_events import Arrivals, Ends, NetworkEvents
from hermes_flow.machine.pool_clients import PoolClients
from hermes_flow.machine.record import Ran, gather, gather_requests
from hermes_flow.machine.routers import Routers
from hermes_flow.network.fabric import Fabric
from hermes_flow.network.topology import Path, Topology
from hermes_flow.pools.client import Calls, Connect, Passing, PoolClient, Transfer
from hermes_flow.pools.kind import kind_called
from hermes_flow.pools.shared_device import SharedDevice, Taker
from hermes_flow.pools.tasks import PoolTasks
from hermes_flow.program.freed_memory import MANY_REQUESTS, give_back
from hermes_flow.program.program import Program
from hermes_flow.program.resource import Resource
from hermes_flow.recording.check_times import check_times
from hermes_flow.recording.recording import Recording
from hermes_flow.routing.stale_loads import Scrape

if TYPE_CHECKING:
    from hermes_flow.machine.carried_kv import Send
    from hermes_flow.machine.elastic_pools import ElasticPools
    from hermes_flow.machine.front import Front
    from hermes_flow.machine.new_tries import NewTries

Progress = Callable[[int], None]
Requests = OpenArrivals | ClosedArrivals | SessionArrivals | AheadArrivals | KnownArrivals
Watch = Callable[[Callable[[], Recording], int], bool]


def run(
    program: Program,
    progress: Progress | None = None,
    watch: Watch | None = None,
    every: int = ARRIVALS_PER_SETTLE,
) -> Recording:
    """Simulate ``program`` to its end; ``progress`` is called with the simulated nanoseconds now and then.

    ``watch(snapshot, now_ns)`` is called after every ``every`` arrivals and after the last one; ``snapshot()`` gives
    a Recording of what has happened so far, without clients and links, in which -1 stands for what has not. The run
    ends early where ``watch`` returns True, and what is returned is then such a snapshot.
    """
    if program.stream_requests is not None:
        return _run_windowed(program, progress, watch)
    wall, cpu = time.perf_counter(), time.process_time()
    collecting = gc.isenabled()
    gc.disable()  # nothing here is cyclic, and a run keeps millions of small objects alive
    try:
        ahead = host_ahead(program) if watch is None else None
        machine = Machine(program, ahead)
        stopped = False

        def look(now_ns: int) -> bool:
            nonlocal stopped
            assert watch is not None
            stopped = watch(machine.snapshot, now_ns)
            return stopped

        if isinstance(machine.source, KnownArrivals):
            every = 1  # each stands for many
        machine.engine.run(progress, None if watch is None else look, every)
        if stopped:
            return machine.snapshot()
        if not machine.complete_host():
            machine = Machine(program)
            machine.engine.run(progress)
        recording = machine.record(time.perf_counter() - wall, time.process_time() - cpu)
        if len(program.requests) >= MANY_REQUESTS:
            del machine  # its parts refer to each other, and would stay while the tables are built
            gc.collect()
            give_back(len(program.requests))
        return check_times(recording)
    except (struct.error, OverflowError) as error:
        if plugin_fault(error) is not None:
            raise
        raise HermesFlowError(
            "the run goes past 106 days of simulated time, where its clock (64 bits of picoseconds) ends; "
            "expected a shorter load, as with workload.requests, or a part of a trace (workload.start and "
            "workload.duration)"
        ) from None
    finally:
        if collecting:
            gc.enable()


def _run_windowed(program: Program, progress: Progress | None, watch: Watch | None) -> Recording:
    """Simulate a program in windows; raises HermesFlowError where somebody watches the whole run."""
    from hermes_flow.machine.windowed import run_windowed

    if watch is not None:
        raise HermesFlowError(
            f"output.stream_requests: {program.stream_requests}, but a search looks at runs before their end; "
            "expected null"
        )
    return check_times(run_windowed(program, progress))


class Machine:
    """The engine, the coordinator and the clients of one run."""

    def __init__(self, program: Program, ahead: HostAhead | None = None) -> None:
        self.program = program
        self.ahead = ahead
        self.engine = Engine()
        self.coordinator = Coordinator(program, self.engine, frozenset() if ahead is None else ahead.behind)
        self.tasks: list[PoolTasks] = []
        self.clients: list[Sequence[PoolClient]] = []
        self.offsets: list[dict[int, int]] = []
        self._moves: dict[int, Callable[[int], None]] = {}  # negative payload → what follows its move
        self._last_move = 0
        self.failing_links: int | None = None  # the rank of what changes links
        self.elastic = _elastic_pools(program, self.engine, self.coordinator, self.tasks)
        self.routers = Routers(program, self.coordinator, self.tasks, self.clients, self.elastic)
        self._build_pools()
        self.front = _front(program, self.coordinator, self.routers.site_of, self._tries())
        self.topology: Topology | None = None
        self.fabric: Fabric | None = None
        self.fabric_rank = -1
        self.source: Requests
        if ahead is None:
            self.source = self._build_source()
            if self.elastic is not None:
                finished = self.coordinator.on_finish
                self.elastic.build(self.clients, self.tasks, self._arrivals(), finished, self.front)
        resources = self._resources()
        self.coordinator.compile()
        rank = 0
        if ahead is not None:
            self.source, rank = ahead.source(self)
            deliveries = [client.deliveries for clients in self.clients for client in clients]
            resources[: len(deliveries)] = deliveries  # some may know more than before
        self.engine.attach(self.source, resources, lambda rank: self._name(resources[rank]), rank)
        if self.elastic is not None:
            self.elastic.begin()
        if self.failing_links is not None:
            self.engine.reschedule(self.failing_links)

    def _tries(self) -> NewTries | None:
        """Return what begins requests anew whose users try again, or whose site has failed, if some do."""
        sites = self.program.sites
        if self.program.retries is None and (sites is None or not sites.moves):
            return None
        from hermes_flow.machine.new_tries import NewTries

        lost = None if self.elastic is None else self.elastic.lost_tasks
        return NewTries(self.coordinator, self.tasks, lost)

    def _resources(self) -> list[Resource]:
        """Rank what can happen at one instant: deliveries, of tasks and of KV, before the plans of LLM clients."""
        engine, coordinator = self.engine, self.coordinator
        deliveries = [client.deliveries for clients in self.clients for client in clients]
        ranked: list[Resource] = list(deliveries)
        if self.program.network is not None or self.program.hosts:
            self.topology = topology = Topology(self.program.network, self.program.hosts)
            self.fabric = fabric = Fabric(topology, self._moved)
            self.fabric_rank = len(ranked)
            events = NetworkEvents(fabric, engine, len(ranked))
            sent = events.changed
            coordinator.transfers.connect(topology, fabric, sent)
            connect = self._ways(topology, fabric, sent)
            if self.program.network is not None:
                self.contexts.carry = self._carry(topology, fabric, sent)
            if self.ahead is not None:
                self.contexts.engine = engine
            for clients in self.clients:
                for client in clients:
                    client.connect(connect)
                    if self.ahead is not None:
                        client.look_ahead(self._passing(topology, fabric))
            ranked += (events.ends, events.arrivals)
            if self.elastic is not None and self.elastic.lost_tasks is not None:
                self.elastic.lost_tasks.connect(self._carry_kv(topology, fabric, sent))
            self._let_links_fail(topology, fabric, ranked, sent)
        for scrape in self.routers.scrapes.values():
            scrape.on_wake = partial(engine.reschedule, len(ranked))
            ranked.append(scrape)
        if self.front is not None:
            self.front.rank(ranked, engine)
        if self.elastic is not None:
            ranked += self.elastic.rank(len(ranked), engine.waits_only_for)
        for number, pool in enumerate(coordinator.pools):
            router = self.program.pools[number].joins
            ranks = (pool if router is None else coordinator.pools[router]).ranks
            for index, client in enumerate(self.clients[number]):
                plans, delivers = client.plans, partial(engine.reschedule, pool.first_number + index)
                if plans is None:
                    ranks.append(pool.first_number + index)
                    if isinstance(client, Taker):
                        client.on_change(delivers, lambda: None)
                    client.on_renewed(delivers, delivers)
                    continue
                ranks.append(len(ranked))
                client.on_change(deliveries=delivers, plans=partial(engine.reschedule, len(ranked)))
                client.on_renewed(delivers, partial(engine.reschedule, len(ranked)))
                ranked.append(plans)
        return ranked

    def _let_links_fail(
        self, topology: Topology, fabric: Fabric, ranked: list[Resource], changed: Callable[[], None]
    ) -> None:
        """Add what changes the links of the network."""
        network = self.program.network
        if network is None or not network.changes:
            return
        from hermes_flow.machine.failing_links import FailingLinks

        rank = len(ranked)
        fabric.sends_alone = False
        failing = FailingLinks(network.changes, topology, fabric)
        failing.is_over = partial(self.engine.waits_only_for, frozenset((rank,)))
        failing.on_change = changed
        self.failing_links = rank
        ranked.append(failing)

    def _name(self, resource: Resource) -> str:
        """Return what an error calls a resource."""
        for pool, clients in zip(self.program.pools, self.clients, strict=True):
            for client in clients:
                if resource in (client.deliveries, client.plans):
                    return f"client {pool.name}/{client.index}"
        if isinstance(resource, Ends | Arrivals):
            return "the network"
        return "the reading of loads for a router" if isinstance(resource, Scrape) else "the fleet of a pool"

    def _ways(self, topology: Topology, fabric: Fabric, sent: Callable[[], None]) -> Connect:
        """Return what opens a way through memories to clients that read from them or write to them."""

        def connect(places: tuple[int, ...]) -> Transfer:
            path = topology.memory_path(*places)

            def move(
                size: int, over: Callable[[int], None], now_ns: int, alone_ns: int | None = None
            ) -> None:
                payload = self._expect_move(over)
                if alone_ns is None:
                    fabric.send(path, size, payload, now_ns)
                else:
                    fabric.send(path, size, payload, now_ns, most_bytes_per_ns=size / max(1, alone_ns))
                sent()

            return move

        return connect

    def _passing(self, topology: Topology, fabric: Fabric) -> Callable[[tuple[int, ...]], Passing]:
        """Return what opens a way through memories for bytes that have moved before anything else happens."""
        engine = self.engine

        def connect(places: tuple[int, ...]) -> Passing:
            path = topology.memory_path(*places)

            def move(size: int, now_ns: int) -> int:
                quiet_ns = engine.quiet_ns
                return fabric.pass_alone(path, size, now_ns, quiet_ns) if quiet_ns > now_ns else -1

            return move

        return connect

    def _carry(self, topology: Topology, fabric: Fabric, sent: Callable[[], None]) -> Carry:
        """Return what moves bytes between two clients; on one machine they are there at once."""

        def carry(sender: int, receiver: int, size: int, over: Callable[[int], None], now_ns: int) -> None:
            path = topology.data_path(sender, receiver)
            at_ns = now_ns
            if path is not None:
                quiet_ns = self.engine.quiet_ns
                at_ns = fabric.pass_alone(path, size, now_ns, quiet_ns) if quiet_ns > now_ns else -1
            if at_ns >= 0:
                over(at_ns)
                return
            assert path is not None
            fabric.send(path, size, self._expect_move(over), now_ns)
            sent()

        return carry

    def _carry_kv(self, topology: Topology, fabric: Fabric, sent: Callable[[], None]) -> Send:
        """Return what moves KV between two clients over all links between them."""

        def carry(
            sender: int, receiver: int, size: int, over: Callable[[int], None], now_ns: int, more_ns: int
        ) -> None:
            path = topology.path(sender, receiver)
            fabric.send(Path(path.links, path.latency_ns + more_ns), size, self._expect_move(over), now_ns)
            sent()

        return carry

    def _expect_move(self, over: Callable[[int], None]) -> int:
        """Return the payload of a move that ``over(now_ns)`` follows: below 0, unlike those of KV for an op."""
        self._last_move -= 1
        self._moves[self._last_move] = over
        return self._last_move

    def _moved(self, payload: int, now_ns: int) -> None:
        """A transfer is over: of KV to an op's client, or in or out of a memory."""
        if payload >= 0:
            self.coordinator.transfers.delivered(payload, now_ns)
        else:
            self._moves.pop(payload)(now_ns)

    def _build_pools(self) -> None:
        program = self.program
        behind = frozenset() if self.ahead is None else self.ahead.behind
        followed = {
            before for number, op in enumerate(program.ops) if number not in behind for before in op.after
        }
        waited_for = program.followed or self.elastic is not None
        count = len(program.requests)
        pools: list[PoolClients] = []
        ops_of: list[list[int]] = []
        waited_of: list[tuple[bool, ...]] = []
        contexts = self.contexts = Contexts(program, self.coordinator, self.tasks, self.clients)
        number = 0
        for index, pool in enumerate(program.pools):
            ops = [number for number, op in enumerate(program.ops) if op.pool == index]
            shares = pool.device is not None or any(other.device == index for other in program.pools)
            all_waited = waited_for or shares or kind_called(pool.client.kind).notifies
            contexts.waits_alone(number for number in ops if not all_waited and number not in followed)
            waited = [all_waited or number in followed or contexts.watches([number]) for number in ops]
            ops_of.append(ops)
            waited_of.append(tuple(waited))
            offsets = {number: place * count for place, number in enumerate(ops)}
            pools.append(PoolClients(number, any(waited), offsets, group_size=pool.count // pool.groups))
            number += pool.count
        calls: dict[int, Calls] = {}
        for index, pool in enumerate(program.pools):
            router = index if pool.joins is None else pool.joins
            own = ops_of[index]
            done = contexts.following(index, own, self.coordinator.done(own))
            if self.elastic is not None:
                done = self.elastic.following(own, done)
            elastic = self.elastic if self.elastic is not None and self.elastic.holds(index) else None
            calls[index] = calls.get(router) or Calls(
                done=done if elastic is None else self.coordinator.noting_ends(own, done),
                begun=self.coordinator.transfers.begun(own),
                granted=self.coordinator.granted(own),
                failed=self.coordinator.failed(own),
                notify=pools[index].notify,
                waited=waited_of[index],
            )
            joined = None if pool.joins is None else self.tasks[router]
            tasks, clients = build_clients(program, index, own, calls[index], joined)
            if elastic is not None:
                clients = elastic.slots(index, clients, tasks, calls[index])
            self.tasks.append(tasks)
            self.clients.append(clients)
            self._watch(index, ops_of[router])
        contexts.prepare()
        self._share_devices()
        routers = self.routers
        for index, pool in enumerate(program.pools):
            if pool.joins is not None:
                continue
            served = [client for member in program.sharing(index) for client in self.clients[member]]
            pools[index].chooses = len(served) > 1 or bool(pool.routing_stale_ns)
            self.coordinator.pools = pools
            unfinished = routers.counted(index, ops_of[index], served)
            pools[index].attach(served, *routers.choices(index, ops_of[index], served, unfinished))
            pools[index].notify |= unfinished is not None
            if index in routers.scrapes:
                pools[index].on_placed = routers.scrapes[index].wake
        self.offsets = [pool.offsets for pool in pools]
        self.coordinator.attach(pools, self._receive_kv, self._context_bytes)
        self.coordinator.transfers.context_sizes = self._context_sizes
        for route, choice in zip(program.load_routes, self.coordinator.load_choices, strict=True):
            measure = "queued_tokens" if route.tokens else "outstanding"
            choice.attach([[getattr(one, measure) for one in routers.seen[pool]] for pool in route.pools])

    def _share_devices(self) -> None:
        """Let clients of several pools take turns on the devices that they share."""
        devices: dict[PoolClient, SharedDevice] = {}
        for pool, clients in zip(self.program.pools, self.clients, strict=True):
            if pool.device is None:
                continue
            owners = self.clients[pool.device]
            for client in clients:
                owner = owners[client.index % len(owners)]
                if owner not in devices:
                    devices[owner] = SharedDevice()
                    owner.take_turns(devices[owner])
                client.take_turns(devices[owner])

    def _watch(self, index: int, ops: list[int]) -> None:
        """Let the clients of a pool tell when they have written tokens with which other ops begin."""
        tokens = self.coordinator.watched_tokens(ops)
        for client in self.clients[index] if tokens else ():
            client.watch(tokens, self.coordinator.written(ops))

    def _context_bytes(self, number: int, request: int) -> int:
        """Return the bytes of KV that a retrieval has found for a request."""
        pool = self.program.ops[number].pool
        return self.tasks[pool].context_bytes(self.offsets[pool][number] + request)

    def _context_sizes(self, number: int) -> tuple[list[int], int] | None:
        """Return the bytes of KV that a retrieval has found by task, if they are kept so, and its first task."""
        pool = self.program.ops[number].pool
        sizes = self.tasks[pool].context_sizes()
        return None if sizes is None else (sizes, self.offsets[pool][number])

    def _receive_kv(self, number: int, request: int) -> None:
        """The KV of a decode's prompt is on its client: it goes on from the prefill's token, or makes that anew."""
        op = self.program.ops[number]
        assert op.kv is not None
        prefill = self.program.ops[op.kv.source]
        first_ps = self.tasks[prefill.pool].first_token_ps(self.offsets[prefill.pool][op.kv.source] + request)
        task = self.offsets[op.pool][number] + request
        self.tasks[op.pool].take_over(task, first_ps)

    def _build_source(self) -> OpenArrivals | ClosedArrivals | SessionArrivals:
        requests = self.program.requests
        arrive: Callable[[int, int], None] = self.coordinator.arrive
        if self.front is not None:
            arrive = self.front.arrive
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
        if self.front is None:
            self.coordinator.on_finish, self.coordinator.on_fail = source.finished, source.failed
        else:
            self.front.follow(source)
        return source

    def _arrivals(self) -> Sequence[int]:
        """Return when requests arrive, filled as they do where that depends on answers."""
        if isinstance(self.source, OpenArrivals | AheadArrivals | KnownArrivals):
            return cast(list[int], self.program.requests.arrival_ns.tolist())
        return self.source.arrival_ns

    def complete_host(self) -> bool:
        """Write down what was computed ahead of the run; return False if it does not hold."""
        if self.ahead is None:
            return True
        if self.fabric is not None and not self.fabric.was_known:
            return False
        return self.ahead.complete(self.coordinator, self.tasks, self.clients, self.offsets)

    def record(self, wall_s: float, cpu_s: float) -> Recording:
        """Return everything that happened."""
        return gather(self._ran(), wall_s, cpu_s)

    def snapshot(self) -> Recording:
        """Return what has happened to the requests so far."""
        return gather_requests(self._ran())

    def _ran(self) -> Ran:
        arrival = self.program.requests.arrival_ns
        if not isinstance(self.source, OpenArrivals | AheadArrivals | KnownArrivals):
            arrival = np.array(self.source.arrival_ns, dtype=np.int64)
        return Ran(
            self.program,
            self.coordinator,
            arrival,
            self.tasks,
            self.clients,
            self.offsets,
            self.engine.events,
            self.elastic,
            self.front,
        )


def _front(
    program: Program, coordinator: Coordinator, site_of: list[int], tries: NewTries | None
) -> Front | None:
    """Return what stands between arrivals and the coordinator, which most programs do without."""
    if program.admission is None and program.requests.timeout_ns is None and program.sites is None:
        return None
    from hermes_flow.machine.front import Front

    return Front(program, coordinator, site_of, tries)


def _elastic_pools(
    program: Program, engine: Engine, coordinator: Coordinator, tasks: Sequence[PoolTasks]
) -> ElasticPools | None:
    if all(pool.fleet is None for pool in program.pools):
        return None
    from hermes_flow.machine.elastic_pools import ElasticPools

    return ElasticPools(program, engine, coordinator, tasks)
