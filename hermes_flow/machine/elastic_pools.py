"""Builds what a machine needs for pools whose clients come and go: slots, routers and fleets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from hermes_flow.machine.attainment import Attainment
from hermes_flow.machine.carried_kv import CarriedKV
from hermes_flow.machine.client_slot import ClientSlot
from hermes_flow.machine.coordinator import Coordinator
from hermes_flow.machine.elastic_router import Begin, ElasticRouter
from hermes_flow.machine.engine import Engine
from hermes_flow.machine.front import Front
from hermes_flow.machine.kept_tiers import KeptTiers
from hermes_flow.machine.lost_tasks import LostTasks
from hermes_flow.machine.open_sites import OpenSites
from hermes_flow.machine.outages import Outages
from hermes_flow.machine.pool_fleet import PoolFleet
from hermes_flow.machine.router_fleet import RouterFleet
from hermes_flow.machine.site_fleets import SiteFleets
from hermes_flow.pools.client import Called, Calls, PoolClient
from hermes_flow.pools.kind import kind_called
from hermes_flow.pools.tasks import PoolTasks
from hermes_flow.program.fleet import Fleet
from hermes_flow.program.pools import Pool
from hermes_flow.program.program import Program
from hermes_flow.program.routing import Choose
from hermes_flow.recording.recording import ClientRecord
from hermes_flow.recording.stopped_clients import as_one_client


class ElasticPools:
    """The elastic pools of one machine.

    With sites a pool has a fleet at each of them. ``fleets`` has all of them, by pool and first client.
    """

    def __init__(
        self, program: Program, engine: Engine, coordinator: Coordinator, tasks: Sequence[PoolTasks]
    ) -> None:
        """``tasks`` may be filled later."""
        self._program = program
        self._engine = engine
        self._coordinator = coordinator
        self._tasks: dict[tuple[int, int], RouterFleet] = {}  # by the pool that ops name, and site (−1: none)
        self.fleets: dict[tuple[int, int], PoolFleet] = {}
        self._place: dict[tuple[int, int], tuple[PoolFleet, int]] = {}  # (pool, client) → fleet, place there
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

        running = {place for part in self._parts(index) for place in part.running}
        slots = [
            ClientSlot(client, partial(renew, place), running=place in running)
            for place, client in enumerate(clients)
        ]
        for slot in slots:
            slot.going_on = self._going_on.setdefault(index if pool.joins is None else pool.joins, {})
        return slots

    def router(self, index: int, begins: Mapping[int, Begin], site_of: Sequence[int]) -> Choose:
        """Return the choice of a pool, and of those that share its router, among the clients that are up.

        ``begins`` has the beginning of its policy at each site, −1 without sites, and ``site_of`` the site of each
        request that has set out.
        """
        up: dict[int, list[int]] = {site: [] for site in begins}
        where: list[int] = []
        for member in self._program.sharing(index):
            first = len(where)
            for part in self._parts(member):
                up[part.site] += [first + place for place in part.running]
                where += [part.site] * part.count
        requests, name = len(self._program.requests), self._program.pools[index].name
        parts: dict[int, RouterFleet] = {}
        for site, begin in begins.items():
            router = ElasticRouter(begin, up[site])
            fleet = parts[site] = RouterFleet(router, len(where), requests, self._coordinator.resume)
            fleet.give_up = lambda request, now_ns: self._coordinator.failures.give_up(
                request, now_ns, f"no client of pool {name} is left"
            )
            self._tasks[index, site] = fleet
        if self._program.sites is None:
            self._coordinator.pools[index].fleet = parts[-1]
            return parts[-1].router.choose
        fleets = SiteFleets(parts, where, site_of, requests)
        self._coordinator.pools[index].fleet = fleets
        return fleets.choose

    def build(
        self,
        clients: Sequence[Sequence[PoolClient]],
        tasks: Sequence[PoolTasks],
        arrival_ns: Sequence[int],
        finished: Callable[[int, int], None] | None,
        front: Front | None,
    ) -> None:
        """Build the fleets, after all pools have their routers; ``finished`` is told of ended requests, too."""
        attainment = self._attainment(tasks, arrival_ns, finished, front)
        open_sites = None
        if front is not None and front.sites is not None and self._program.sites is not None:
            open_sites = OpenSites(self._program.sites, front.sites, moves=self._program.sites.moves)
        for (index, site), own in self._tasks.items():
            first = 0
            members: list[tuple[int, int, PoolFleet | None]] = []
            for member in self._program.sharing(index):
                pool = self._program.pools[member]
                for part in self._parts(member):
                    if part.site != site:
                        continue
                    if part.fleet is None:
                        members.append((first + part.first, part.count, None))
                        continue
                    slots = [
                        client
                        for client in clients[member][part.first : part.first + part.count]
                        if isinstance(client, ClientSlot)
                    ]
                    fleet = self._fleet(pool, index, slots, first, own, arrival_ns, attainment, part)
                    self.fleets[member, part.first] = fleet
                    for place, slot in enumerate(slots):
                        self._place[member, slot.index] = (fleet, place)
                    members.append((first + part.first, len(slots), fleet))
                    if open_sites is not None and self._shares_load(member):
                        open_sites.count(site, fleet, part.count)
                first += pool.count
            _connect(own, members, open_sites)
            if open_sites is not None:
                open_sites.add(site, own, [fleet for _, _, fleet in members if fleet is not None])
        if open_sites is not None:
            open_sites.changed(0)

    def _parts(self, index: int) -> list[_Part]:
        """Return the clients of a pool by site; without sites, all of them."""
        pool, sites = self._program.pools[index], self._program.sites
        if pool.fleet is not None:
            return [
                _Part(fleet.site, first, count, fleet)
                for first, count, fleet in pool.fleet.by_site(pool.count)
            ]
        if sites is None:
            return [_Part(-1, 0, pool.count, None)]
        where = sites.clients[index]
        return [_Part(site, where.index(site), where.count(site), None) for site in dict.fromkeys(where)]

    def _shares_load(self, index: int) -> bool:
        """Return whether site policies count requests per client of a pool: the LLM clients, else all."""
        prompts = [kind_called(pool.client.kind).prompts for pool in self._program.pools]
        return prompts[index] or not any(prompts)

    def _fleet(
        self,
        pool: Pool,
        tasks_of: int,
        slots: list[ClientSlot],
        first: int,
        tasks: RouterFleet,
        arrival_ns: Sequence[int],
        attainments: Mapping[int, Attainment],
        part: _Part,
    ) -> PoolFleet:
        """Return the fleet of a pool that serves the ops of pool ``tasks_of``; its lost tasks begin anew or fail.

        ``first`` is the number of the pool's first client at its router.
        """
        fleet = part.fleet
        assert fleet is not None
        failing, outages, running = fleet.failing, None, [slot.running for slot in slots]
        if failing is not None:
            outages = Outages(failing, pool.name, self._program.seed, running, part.first)
        attainment = attainments.get(part.site)
        place = first + part.first
        built = PoolFleet(slots, place, tasks, fleet.autoscaling, arrival_ns, attainment, outages, failing)
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
        found = self._place.get((index, slot.index))
        states = () if found is None else tuple(found[0].states[found[1]])
        return as_one_client(records, present, states)

    def _attainment(
        self,
        tasks: Sequence[PoolTasks],
        arrival_ns: Sequence[int],
        finished: Callable[[int, int], None] | None,
        front: Front | None,
    ) -> Mapping[int, Attainment]:
        """Let policies that need it know which requests keep the limits of the SLO, at each site by itself."""
        fleets = [pool.fleet for pool in self._program.pools if pool.fleet is not None]
        scalings = [fleet.autoscaling for fleet in fleets if fleet.autoscaling is not None]
        if not any("slo" in getattr(scaling.policy, "needs", ()) for scaling in scalings):
            return {}
        coordinator, sites = self._coordinator, self._program.sites
        names: Sequence[int] = (-1,) if sites is None else range(-1, len(sites.names))
        attainments = {site: Attainment(self._program, coordinator, tasks, arrival_ns) for site in names}
        fail = coordinator.failures.on_fail

        def on_finish(request: int, now_ns: int) -> None:
            if finished is not None:
                finished(request, now_ns)
            sites = None if front is None else front.sites
            if sites is None:
                attainments[-1].finished(request, now_ns, 0)
            elif front is not None and request not in front.late:
                attainments[sites.site[request]].finished(request, now_ns, sites.back_ns[request])

        def on_fail(request: int, now_ns: int) -> list[int]:
            later = fail(request, now_ns)
            place = -1 if front is None or front.sites is None else front.sites.site[request]
            for _ in range(1 + len(later)):
                attainments[place].failed(now_ns)
            return later

        coordinator.on_finish, coordinator.failures.on_fail = on_finish, on_fail
        return attainments


@dataclass(frozen=True, slots=True)
class _Part:
    """The ``count`` clients of a pool at one ``site`` (−1: no sites), and their fleet, if they come and go."""

    site: int
    first: int
    count: int
    fleet: Fleet | None

    @property
    def running(self) -> range:
        """The clients that are up when the run begins, by their numbers in the pool."""
        scaling = None if self.fleet is None else self.fleet.autoscaling
        return range(self.first, self.first + (self.count if scaling is None else scaling.initial))


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


def _connect(
    tasks: RouterFleet, members: Sequence[tuple[int, int, PoolFleet | None]], sites: OpenSites | None
) -> None:
    """Let a router know the clients that are up as they change, and each fleet what its clients have in hand."""

    def changed(now_ns: int) -> None:
        up: list[int] = []
        for first, count, fleet in members:
            up += range(first, first + count) if fleet is None else fleet.numbers_up()
        tasks.router.set_up(up)
        if sites is not None:
            sites.changed(now_ns)
        tasks.release(now_ns)

    def emptied(client: int, now_ns: int) -> None:
        for first, count, fleet in members:
            if fleet is not None and first <= client < first + count:
                fleet.emptied(client - first, now_ns)

    tasks.on_empty = emptied
    tasks.may_open = lambda: (
        any(fleet is not None and fleet.may_open() for _, _, fleet in members)
        or (sites is not None and sites.may_serve())
    )
    for _, _, fleet in members:
        if fleet is not None:
            fleet.changed = changed
