"""Builds the machine of a Program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, cast

import numpy as np

from hermes_flow.machine.arrivals import (
    AheadArrivals,
    ClosedArrivals,
    KnownArrivals,
    OpenArrivals,
    SessionArrivals,
)
from hermes_flow.machine.build import build_clients
from hermes_flow.machine.context_handover import Contexts
from hermes_flow.machine.coordinator import Coordinator
from hermes_flow.machine.engine import Engine
from hermes_flow.machine.host_ahead import HostAhead
from hermes_flow.machine.moves import Moves
from hermes_flow.machine.network_events import Arrivals, Ends, NetworkEvents
from hermes_flow.machine.pool_clients import PoolClients
from hermes_flow.machine.record import Ran, gather, gather_requests
from hermes_flow.machine.routers import Routers
from hermes_flow.network.fabric import Fabric
from hermes_flow.network.topology import Topology
from hermes_flow.pools.client import Calls, PoolClient
from hermes_flow.pools.kind import kind_called
from hermes_flow.pools.shared_device import SharedDevice, Taker
from hermes_flow.pools.tasks import PoolTasks
from hermes_flow.program.program import Program
from hermes_flow.program.resource import Resource
from hermes_flow.recording.recording import Recording
from hermes_flow.routing.stale_loads import Scrape

if TYPE_CHECKING:
    from hermes_flow.machine.elastic_pools import ElasticPools
    from hermes_flow.machine.front import Front
    from hermes_flow.machine.new_tries import NewTries

Requests = OpenArrivals | ClosedArrivals | SessionArrivals | AheadArrivals | KnownArrivals


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
            moves = Moves(engine, topology, coordinator.transfers.delivered)
            self.fabric = fabric = Fabric(topology, moves.moved)
            self.fabric_rank = len(ranked)
            events = NetworkEvents(fabric, engine, len(ranked))
            sent = events.changed
            coordinator.transfers.connect(topology, fabric, sent)
            moves.attach(fabric, sent)
            if self.program.network is not None:
                self.contexts.carry = moves.carry()
            if self.ahead is not None:
                self.contexts.engine = engine
            for clients in self.clients:
                for client in clients:
                    client.connect(moves.way)
                    if self.ahead is not None:
                        client.look_ahead(moves.passing)
            ranked += (events.ends, events.arrivals)
            if self.elastic is not None and self.elastic.lost_tasks is not None:
                self.elastic.lost_tasks.connect(moves.carry_kv())
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
                failed=self.coordinator.failures.refused(),
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
        self.coordinator.transfers.data.context_sizes = self._context_sizes
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
            self.coordinator.on_finish, self.coordinator.failures.on_fail = source.finished, source.failed
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
