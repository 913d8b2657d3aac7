"""What the routers of a machine see of its clients, and the choice that each of them makes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from hermes_flow.machine.coordinator import Coordinator
from hermes_flow.machine.task_knowledge import PoolFacts
from hermes_flow.pools.client import PoolClient, PoolTasks
from hermes_flow.pools.kind import kind_called
from hermes_flow.program.pools import findable_blocks
from hermes_flow.program.program import Program
from hermes_flow.routing import Choose, Routable, RoutedPool, needs_of, start
from hermes_flow.routing.stale_loads import Scrape
from hermes_flow.routing.unfinished import Unfinished
from hermes_flow.workload.streams import stream

if TYPE_CHECKING:
    from hermes_flow.machine.elastic_pools import ElasticPools

# Asking so many clients for their tasks costs more than firing them whenever an answer leaves.
_MANY_CLIENTS = 16


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
        program, pool, tasks = self._program, self._program.pools[index], self._tasks[index]
        receives = [program.ops[number].kv is not None for number in ops]
        facts = PoolFacts(program.requests, tasks)
        if "contexts" in needs_of(pool.routing):
            facts = facts.with_contexts(self._context_times(index, ops))
        blocks = [
            findable_blocks(program.pools[member].client)
            for member in program.sharing(index)
            for _ in self._clients[member]
        ]
        routed: Sequence[Routable] = clients
        watched = any(index in route.pools for route in program.load_routes)
        stale = pool.routing_stale_ns and (len(clients) > 1 or watched)
        scrape = Scrape(routed, pool.routing_stale_ns) if stale else None
        if scrape is not None:
            self.scrapes[index] = scrape
            routed = scrape.clients
        self.seen[index] = routed

        def among(first: int, count: int, name: str) -> Choose:
            known = facts
            if any(receives):
                known = facts.with_transfers(self._coordinator.transfers.transfer_times(ops, first=first))
            rng = stream(program.seed, f"routing:{name}")
            known_blocks = [number for number in blocks[first : first + count] if number is not None]
            view = RoutedPool(
                routed[first : first + count], rng, known, known_blocks or None, unfinished=unfinished
            )
            choose = start(pool.routing, view)
            return choose if scrape is None else scrape.waking(choose)

        if program.sites is not None:
            from hermes_flow.machine.site_choice import choice_at_site

            def at_site(own: Sequence[int], site: str) -> Choose:
                rng, known = stream(program.seed, f"routing:{pool.name}:{site}"), [blocks[one] for one in own]
                given = [number for number in known if number is not None]
                return start(
                    pool.routing, RoutedPool([routed[one] for one in own], rng, facts, given or None)
                )

            members, count = program.sharing(index), len(program.requests)
            chosen = choice_at_site(program.sites, members, self.site_of, count, at_site)
            chosen = chosen if scrape is None else scrape.waking(chosen)
            return chosen, [chosen]
        if self._elastic is not None and self._elastic.holds(index):
            facts = (
                facts.with_transfers(self._coordinator.transfers.transfer_times(ops, first=0))
                if any(receives)
                else facts
            )
            rng, memory = stream(program.seed, f"routing:{pool.name}"), dict[str, Any]()
            numbered = [number or 0 for number in blocks] if any(blocks) else None

            def begin(up: Sequence[int]) -> Choose:
                own = [routed[number] for number in up]
                return start(pool.routing, RoutedPool(own, rng, facts, numbered, numbers=up, memory=memory))

            unheard = RoutedPool(
                routed, rng.spawn(1)[0], facts, numbered, numbers=range(len(routed)), memory={}
            )
            start(pool.routing, unheard)  # all clients keep from now on what the policy reads of any
            router = self._elastic.router(index, begin)
            chosen = router.choose if scrape is None else scrape.waking(router.choose)
            return chosen, [chosen]

        groups = pool.groups if any(receives) else 1
        everywhere = among(0, len(clients), pool.name)
        if groups == 1:
            return everywhere, [everywhere]
        size = pool.count // groups
        return everywhere, [among(group * size, size, f"{pool.name}:{group}") for group in range(groups)]

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
