"""Builds what a machine needs for pools whose clients come and go: slots, routers and fleets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from hermes_flow.machine.attainment import Attainment
from hermes_flow.machine.carried_kv import CarriedKV
from hermes_flow.machine.client_slot import ClientSlot
from hermes_flow.machine.coordinator import Coordinator
from hermes_flow.machine.elastic_router import Begin, ElasticRouter
from hermes_flow.machine.engine import Engine
from hermes_flow.machine.kept_tiers import KeptTiers
from hermes_flow.machine.lost_tasks import LostTasks
from hermes_flow.machine.outages import Outages
from hermes_flow.machine.pool_fleet import PoolFleet
from hermes_flow.machine.router_fleet import RouterFleet
from hermes_flow.pools.client import Called, Calls, PoolClient, PoolTasks
from hermes_flow.pools.kind import kind_called
from hermes_flow.program.pools import Pool
from hermes_flow.program.program import Program
from hermes_flow.recording.recording import ClientRecord
from hermes_flow.recording.stopped_clients import as_one_client


class ElasticPools:
    """The elastic pools of one machine. ``fleets`` has those whose clients change, by pool."""

    def __init__(
        self, program: Program, engine: Engine, coordinator: Coordinator, tasks: Sequence[PoolTasks]
    ) -> None:
        """``tasks`` may be filled later."""
        self._program = program
        self._engine = engine
        self._coordinator = coordinator
        self._tasks: dict[int, RouterFleet] = {}  # by the pool that ops name
        self.fleets: dict[int, PoolFleet] = {}
        self.lost_tasks: LostTasks | None = None
        self._going_on: dict[int, dict[int, int]] = {}  # by the pool that ops name, of its slots
        if any(pool.fleet is not None and pool.fleet.failing is not None for pool in program.pools):
            receivers: list[list[int]] = [[] for _ in program.ops]
            for number, op in enumerate(program.ops):
                if op.kv is not None:
                    receivers[op.kv.source].append(number)
            self.lost_tasks = LostTasks(coordinator, tasks, receivers)
            self.lost_tasks.carried = _carried(program, coordinator)
            kept = [
                bool(pool.fleet and pool.fleet.failing and pool.fleet.failing.keeps_tiers)
                for pool in program.pools
            ]
            self.lost_tasks.kept = KeptTiers(coordinator, kept) if any(kept) else None

    def holds(self, index: int) -> bool:
        """Return whether the clients of a pool, or of one that shares its router, come and go."""
        return _is_elastic(self._program, index)

    def slots(
        self, index: int, clients: Sequence[PoolClient], tasks: PoolTasks, calls: Calls
    ) -> list[ClientSlot]:
        """Return the slots of a pool's clients; those beyond the first ones are empty."""
        pool = self._program.pools[index]
        kind = kind_called(pool.client.kind)

        def renew(place: int) -> PoolClient:
            return kind.renew(self._program, index, tasks, calls, place)

        slots = [
            ClientSlot(client, partial(renew, place), running=place < _initial(pool))
            for place, client in enumerate(clients)
        ]
        for slot in slots:
            slot.going_on = self._going_on.setdefault(index if pool.joins is None else pool.joins, {})
        return slots

    def router(self, index: int, begin: Begin) -> ElasticRouter:
        """Return the router of a pool, and of those that share it: it chooses among the clients that are up."""
        up: list[int] = []
        first = 0
        for member in self._program.sharing(index):
            pool = self._program.pools[member]
            up += range(first, first + _initial(pool))
            first += pool.count
        router = ElasticRouter(begin, up)
        requests = len(self._program.requests)
        fleet = RouterFleet(router, first, requests, self._coordinator.resume)
        name = self._program.pools[index].name
        fleet.give_up = lambda request, now_ns: self._coordinator.give_up(
            request, now_ns, f"no client of pool {name} is left"
        )
        self._tasks[index] = self._coordinator.pools[index].fleet = fleet
        return router

    def build(
        self,
        clients: Sequence[Sequence[PoolClient]],
        tasks: Sequence[PoolTasks],
        arrival_ns: Sequence[int],
        finished: Callable[[int, int], None] | None,
    ) -> None:
        """Build the fleets, after all pools have their routers; ``finished`` is told of ended requests, too."""
        attainment = self._attainment(tasks, arrival_ns, finished)
        for index, own in self._tasks.items():
            first = 0
            members: list[tuple[int, int, PoolFleet | None]] = []
            for member in self._program.sharing(index):
                pool = self._program.pools[member]
                slots = [client for client in clients[member] if isinstance(client, ClientSlot)]
                if pool.fleet is not None:
                    fleet = self._fleet(pool, index, slots, first, own, arrival_ns, attainment)
                    self.fleets[member] = fleet
                    members.append((first, len(slots), fleet))
                else:
                    members.append((first, len(slots), None))
                first += pool.count
            _connect(own, members)

    def _fleet(
        self,
        pool: Pool,
        tasks_of: int,
        slots: list[ClientSlot],
        first: int,
        tasks: RouterFleet,
        arrival_ns: Sequence[int],
        attainment: Attainment | None,
    ) -> PoolFleet:
        """Return the fleet of a pool that serves the ops of pool ``tasks_of``; its lost tasks begin anew or fail."""
        fleet = pool.fleet
        assert fleet is not None
        failing, outages, running = fleet.failing, None, [slot.running for slot in slots]
        if failing is not None:
            outages = Outages(failing, pool.name, self._program.seed, running)
        built = PoolFleet(slots, first, tasks, fleet.autoscaling, arrival_ns, attainment, outages, failing)
        lost = self.lost_tasks
        if lost is not None and failing is not None:
            retries = failing.retries
            going_on = self._going_on[tasks_of] if failing.migrates else None

            def lose(op: int, request: int, client: int, now_ns: int) -> None:
                if not lost.retry(op, request, now_ns, retries, going_on):
                    again = f" {retries + 1} times" if retries else ""
                    lost.give_up(op, request, now_ns, f"a client of {pool.name} failed with it{again}")

            built.lose = lose
            if lost.carried is not None and failing.kv_bytes_per_token:
                built.leave = lost.carried.leave
        return built

    def following(self, ops: list[int], done: Called) -> Called:
        """Return the callback for the end of tasks of any pool, where lost tasks may begin anew."""
        return done if self.lost_tasks is None else self.lost_tasks.following(ops, done)

    def rank(self, first: int, is_over: Callable[[frozenset[int]], bool]) -> list[PoolFleet]:
        """Return the fleets as resources of the engine, of which the first has the rank ``first``."""
        fleets = list(self.fleets.values())
        ranks = frozenset(range(first, first + len(fleets)))
        for rank, fleet in zip(sorted(ranks), fleets, strict=True):
            fleet.on_wake = partial(self._engine.reschedule, rank)
            fleet.is_over = lambda: not any(own.held for own in self._tasks.values()) and is_over(ranks)
        return fleets

    def begin(self) -> None:
        """Let the engine know when the fleets decide first."""
        for fleet in self.fleets.values():
            fleet.on_wake()

    def record(self, index: int, slot: PoolClient) -> ClientRecord:
        """Return the record of the clients of a slot as one, with its states."""
        assert isinstance(slot, ClientSlot)
        pool = self._program.pools[index]
        kind = kind_called(pool.client.kind)
        records = [(kind.record(index, pool.client, client), at) for client, at in slot.stopped]
        present = kind.record(index, pool.client, slot.client) if slot.running or not records else None
        fleet = self.fleets.get(index)
        states = () if fleet is None else tuple(fleet.states[slot.index])
        return as_one_client(records, present, states)

    def _attainment(
        self,
        tasks: Sequence[PoolTasks],
        arrival_ns: Sequence[int],
        finished: Callable[[int, int], None] | None,
    ) -> Attainment | None:
        """Let policies that need it know which requests keep the limits of the SLO."""
        fleets = [pool.fleet for pool in self._program.pools if pool.fleet is not None]
        scalings = [fleet.autoscaling for fleet in fleets if fleet.autoscaling is not None]
        if not any("slo" in getattr(scaling.policy, "needs", ()) for scaling in scalings):
            return None
        coordinator = self._coordinator
        attainment = Attainment(self._program, coordinator, tasks, arrival_ns)
        fail = coordinator.on_fail

        def on_finish(request: int, now_ns: int) -> None:
            attainment.finished(request, now_ns)
            if finished is not None:
                finished(request, now_ns)

        def on_fail(request: int, now_ns: int) -> list[int]:
            later = fail(request, now_ns)
            for _ in range(1 + len(later)):
                attainment.failed(now_ns)
            return later

        coordinator.on_finish, coordinator.on_fail = on_finish, on_fail
        return attainment


def _carried(program: Program, coordinator: Coordinator) -> CarriedKV | None:
    """Return what sends KV away from clients that will fail, if some do with a notice."""
    failing = [None if pool.fleet is None else pool.fleet.failing for pool in program.pools]
    sizes = [
        (0.0, 0.0) if one is None else (one.kv_bytes_per_token, one.kv_bytes_per_sequence) for one in failing
    ]
    if not any(token for token, _ in sizes):
        return None
    return CarriedKV(coordinator, [token for token, _ in sizes], [each for _, each in sizes])


def _is_elastic(program: Program, index: int) -> bool:
    joins = program.pools[index].joins
    router = index if joins is None else joins
    return any(program.pools[member].fleet is not None for member in program.sharing(router))


def _initial(pool: Pool) -> int:
    """Return the number of a pool's clients that are up when the run begins."""
    scaling = None if pool.fleet is None else pool.fleet.autoscaling
    return pool.count if scaling is None else scaling.initial


def _connect(tasks: RouterFleet, members: Sequence[tuple[int, int, PoolFleet | None]]) -> None:
    """Let a router know the clients that are up as they change, and each fleet what its clients have in hand."""

    def changed(now_ns: int) -> None:
        up: list[int] = []
        for first, count, fleet in members:
            up += range(first, first + count) if fleet is None else fleet.numbers_up()
        tasks.router.set_up(up)
        tasks.release(now_ns)

    def emptied(client: int, now_ns: int) -> None:
        for first, count, fleet in members:
            if fleet is not None and first <= client < first + count:
                fleet.emptied(client - first, now_ns)

    tasks.on_empty = emptied
    tasks.may_open = lambda: any(fleet is not None and fleet.may_open() for _, _, fleet in members)
    for _, _, fleet in members:
        if fleet is not None:
            fleet.changed = changed
