"""Builds the routers of a machine: each sees clients and facts of tasks, and makes a choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from hermes_flow.machine.coordinator import Coordinator
from hermes_flow.machine.task_knowledge import PoolFacts
from hermes_flow.pools.client import PoolClient
from hermes_flow.pools.kind import kind_called
from hermes_flow.pools.tasks import PoolTasks
from hermes_flow.program.pools import Pool, findable_blocks
from hermes_flow.program.program import Program
from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.routing import Choose, Routable, RoutedPool, needs_of, start
from hermes_flow.routing.stale_loads import Scrape
from hermes_flow.routing.unfinished import Unfinished
from hermes_flow.workload.streams import stream

if TYPE_CHECKING:
    from hermes_flow.machine.elastic_pools import ElasticPools
    from hermes_flow.machine.elastic_router import Begin

# Asking so many clients for their tasks costs more than firing them whenever an answer leaves.
_MANY_CLIENTS = 16


@dataclass(frozen=True, slots=True)
class _Seen:
    """The view of one router: its ops, its clients with their KV blocks, and the facts of its tasks.

    ``receives``: KV of other pools moves to its clients. ``scrape`` brings loads that are not live.
    """

    ops: list[int]
    clients: Sequence[Routable]
    facts: PoolFacts
    blocks: list[int | None]
    receives: bool
    scrape: Scrape | None
    unfinished: Unfinished | None


class Routers:
    """The routers of one machine. Tasks and clients are by pool, and may be filled later.

    ``seen`` has, by pool, the clients as its router sees them; ``scrapes`` what brings their loads to those routers
    that do not see them live, ``site_of`` the site of each request that has set out, where there are sites.
    """

    def __init__(
        self,
        program: Program,
        coordinator: Coordinator,
        tasks: Sequence[PoolTasks],
        clients: Sequence[Sequence[PoolClient]],
        elastic: ElasticPools | None,
    ) -> None:
        self._program = program
        self._coordinator = coordinator
        self._tasks = tasks
        self._clients = clients
        self._elastic = elastic
        self.scrapes: dict[int, Scrape] = {}
        self.seen: dict[int, Sequence[Routable]] = {}
        self.site_of = [-1] * (0 if program.sites is None else len(program.requests))

    def counted(self, index: int, ops: list[int], clients: Sequence[PoolClient]) -> Unfinished | None:
        """Let the clients of a pool count their tasks where its policy would otherwise ask many of them each time."""
        pool = self._program.pools[index]
        grouped = pool.groups > 1 and any(self._program.ops[number].kv is not None for number in ops)
        if (
            len(clients) < _MANY_CLIENTS
            or not getattr(pool.routing, "counts", False)
            or pool.routing_stale_ns
            or grouped
            or self._program.sites is not None
            or (self._elastic is not None and self._elastic.holds(index))
            or not all(client.countable for client in clients)
        ):
            return None
        unfinished = Unfinished(len(clients))
        for place, client in enumerate(clients):
            client.count(unfinished, place)
        return unfinished

    def choices(
        self, index: int, ops: list[int], clients: Sequence[PoolClient], unfinished: Unfinished | None
    ) -> tuple[Choose, list[Choose]]:
        """Return the choice among all clients of a router, and those among the clients of each group for KV."""
        program, pool = self._program, self._program.pools[index]
        seen = self._look(index, ops, clients, unfinished)
        if self._elastic is not None and self._elastic.holds(index):
            chosen = self._choice_of_those_up(index, seen, self._elastic)
        elif program.sites is not None:
            chosen = self._choice_at_sites(index, seen)
        else:
            groups = pool.groups if seen.receives else 1
            everywhere = self._choice_among(pool, seen, 0, len(clients), pool.name)
            if groups == 1:
                return everywhere, [everywhere]
            size = pool.count // groups
            return everywhere, [
                self._choice_among(pool, seen, group * size, size, f"{pool.name}:{group}")
                for group in range(groups)
            ]
        chosen = chosen if seen.scrape is None else seen.scrape.waking(chosen)
        return chosen, [chosen]

    def _look(
        self, index: int, ops: list[int], clients: Sequence[PoolClient], unfinished: Unfinished | None
    ) -> _Seen:
        """Return what the router of a pool sees: live clients, or their loads at the last scrape."""
        program, pool = self._program, self._program.pools[index]
        facts = PoolFacts(program.requests, self._tasks[index])
        if "contexts" in needs_of(pool.routing):
            facts = facts.with_contexts(self._context_times(index, ops))
        blocks = [
            findable_blocks(program.pools[member].client)
            for member in program.sharing(index)
            for _ in self._clients[member]
        ]
        watched = any(index in route.pools for route in program.load_routes)
        stale = pool.routing_stale_ns and (len(clients) > 1 or watched)
        scrape = Scrape(clients, pool.routing_stale_ns) if stale else None
        if scrape is not None:
            self.scrapes[index] = scrape
        self.seen[index] = routed = clients if scrape is None else scrape.clients
        receives = any(program.ops[number].kv is not None for number in ops)
        return _Seen(ops, routed, facts, blocks, receives, scrape, unfinished)

    def _choice_among(self, pool: Pool, seen: _Seen, first: int, count: int, name: str) -> Choose:
        """Return the choice among ``count`` clients from ``first`` on, which are always there."""
        rng = stream(self._program.seed, f"routing:{name}")
        blocks = [number for number in seen.blocks[first : first + count] if number is not None]
        facts = self._with_transfers(seen, first)
        clients = seen.clients[first : first + count]
        view = RoutedPool(clients, rng, facts, blocks or None, unfinished=seen.unfinished)
        choose = start(pool.routing, view)
        return choose if seen.scrape is None else seen.scrape.waking(choose)

    def _choice_at_sites(self, index: int, seen: _Seen) -> Choose:
        """Return the choice among the clients at the site that each request goes to."""
        from hermes_flow.machine.site_choice import choice_at_site

        program, pool = self._program, self._program.pools[index]
        assert program.sites is not None

        def at_site(own: Sequence[int], site: str) -> Choose:
            rng = stream(program.seed, f"routing:{pool.name}:{site}")
            blocks = [number for one in own if (number := seen.blocks[one]) is not None]
            clients = [seen.clients[one] for one in own]
            return start(pool.routing, RoutedPool(clients, rng, self._facts_at(seen, own), blocks or None))

        members, count = program.sharing(index), len(program.requests)
        return choice_at_site(program.sites, members, self.site_of, count, at_site)

    def _choice_of_those_up(self, index: int, seen: _Seen, elastic: ElasticPools) -> Choose:
        """Return the choice among the clients that are up, of a pool whose clients come and go."""
        program = self._program
        if program.sites is None:
            begins = {-1: self._beginning(index, seen, range(len(seen.clients)), "")}
        else:
            where = [site for member in program.sharing(index) for site in program.sites.clients[member]]
            begins = {
                site: self._beginning(
                    index,
                    seen,
                    [client for client, own in enumerate(where) if own == site],
                    f":{program.sites.names[site]}",
                )
                for site in sorted(set(where))
            }
        return elastic.router(index, begins, self.site_of)

    def _beginning(self, index: int, seen: _Seen, everyone: Sequence[int], place: str) -> Begin:
        """Return what begins the policy of a pool anew among those of ``everyone`` that are up."""
        pool, clients = self._program.pools[index], seen.clients
        facts = self._with_transfers(seen, 0)
        rng, memory = stream(self._program.seed, f"routing:{pool.name}{place}"), dict[str, Any]()
        blocks = [number or 0 for number in seen.blocks] if any(seen.blocks) else None

        def begin(up: Sequence[int]) -> Choose:
            own = [clients[number] for number in up]
            return start(pool.routing, RoutedPool(own, rng, facts, blocks, numbers=up, memory=memory))

        present = [clients[number] for number in everyone]
        unheard = RoutedPool(present, rng.spawn(1)[0], facts, blocks, numbers=everyone, memory={})
        start(pool.routing, unheard)  # all clients keep from now on what the policy reads of any
        return begin

    def _facts_at(self, seen: _Seen, own: Sequence[int]) -> PoolFacts:
        """Return the facts of tasks for the clients ``own`` of a site, with the times of their KV where it moves."""
        facts, known = seen.facts, seen.facts
        if known.has_contexts:
            facts = facts.with_contexts(lambda task, client: known.context_ns(task, own[client]))
        if not seen.receives:
            return facts
        transfer_ns = self._coordinator.transfers.transfer_times(seen.ops, first=0)
        return facts.with_transfers(lambda task, client: transfer_ns(task, own[client]))

    def _with_transfers(self, seen: _Seen, first: int) -> PoolFacts:
        """Return the facts of tasks, with the times of their KV where it moves to clients from ``first`` on."""
        if not seen.receives:
            return seen.facts
        return seen.facts.with_transfers(self._coordinator.transfers.transfer_times(seen.ops, first=first))

    def _context_times(self, index: int, ops: list[int]) -> Callable[[int, int], int | None]:
        """Return how long the store of a client would read the context of a task; the client may be the store."""
        program, own = self._program, self._clients[index]
        if kind_called(program.pools[index].client.kind).keeps_contexts:
            return lambda task, client: own[client].context_ns(task)
        count = len(program.requests)
        beside: dict[
            int, tuple[Sequence[PoolClient], int]
        ] = {}  # place of an op → its stores, and their first task
        for place, number in enumerate(ops):
            edge = program.ops[number].context
            store = None if edge is None else program.ops[edge.source].pool
            if edge is not None and store is not None and program.pools[store].beside == index:
                beside[place] = (self._clients[store], self._coordinator.pools[store].offsets[edge.source])

        def context_ns(task: int, client: int) -> int | None:
            place, request = divmod(task, count)
            if place not in beside:
                return None
            stores, first = beside[place]
            return stores[client].context_ns(first + request)

        return context_ns
