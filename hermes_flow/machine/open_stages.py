"""Computes the stages that depend on the arrivals alone, stage by stage, in loops of their own instead of events.

Such are the passes of a client of its own that every request needs, one after the other, from the arrival on, and
what moves over the network between them. Nothing that comes later changes them, unless it moves over the same links.
That is known after the run, which is then repeated with events.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hermes_flow.machine.arrivals import AheadArrivals, KnownArrivals
from hermes_flow.network.known_transfers import move_known
from hermes_flow.network.topology import Path
from hermes_flow.pools.batched.client import BatchedClient, BatchedTasks
from hermes_flow.pools.batched.known_arrivals import serve_known
from hermes_flow.program.columns import fill
from hermes_flow.program.ops import Op
from hermes_flow.program.pools import BatchedClientSpec
from hermes_flow.program.program import Program
from hermes_flow.program.units import Ints
from hermes_flow.program.work import Passes
from hermes_flow.routing.round_robin import RoundRobin

if TYPE_CHECKING:
    from hermes_flow.machine.wiring import Machine

Start = Callable[[int, int], None]  # (request, now_ns)


@dataclass(slots=True)
class Leaving:
    """The requests ``order``, which leave the op ``last``, or the load where it is None, at ``at_ns``.

    ``start`` begins what follows. Of what happens in one nanosecond, resources of the engine below ``rank`` come
    before them. With ``brought`` they have reached the client that was chosen for that op.
    """

    at_ns: list[int]
    order: list[int]
    rank: int
    start: Start
    last: int | None
    brought: int | None = None


@dataclass(slots=True)
class _Way:
    """The bytes of each request that move to an op, and the path to each of its clients; empty if nothing moves."""

    sizes: list[int]
    paths: list[Path]


class OpenStages:
    """The stages that follow the op ``last``, or the arrival where that is None, as far as they can be computed."""

    def __init__(self, program: Program, last: int | None) -> None:
        self._program = program
        self._last = last
        self._segments = _segments(program, last)

    def source(self, machine: Machine, leaving: Leaving) -> tuple[AheadArrivals | KnownArrivals, int]:
        """Let all requests go through the stages; return the source of what follows them, and its rank."""
        leaving = self._serve(machine, leaving)
        known = self._known(machine, leaving)
        if known is not None:
            return known, leaving.rank
        return AheadArrivals(leaving.at_ns, leaving.order, leaving.start), leaving.rank

    def _known(self, machine: Machine, leaving: Leaving) -> KnownArrivals | None:
        """Return the source of the tasks that follow, where nobody waits for them and their clients are known."""
        number = leaving.brought
        if number is None:
            number = self._next_in_turn(leaving.last)
        amid = number is None
        if amid and not leaving.rank:  # else something may come before them at their instant
            number = self._next_alone(leaving.last)
        if number is None or not leaving.order:
            return None
        hop, pool = machine.coordinator.hop(number), self._program.ops[number].pool
        clients = machine.clients[pool]
        if amid:
            if not clients[0].takes_known_amid:
                return None
        elif hop.notify or not all(client.takes_known for client in clients):
            return None
        if leaving.brought is None:
            if not hop.plain:
                return None
            chosen = self._choose(machine, number, leaving)
        order = np.array(leaving.order)
        if leaving.brought is not None:
            chosen = np.array(hop.client)[order]

        if amid:
            self._promise(machine, number, leaving)

        def count(events: int) -> None:
            machine.engine.events += events

        def wake(place: int) -> None:
            machine.engine.reschedule(hop.ranks[place])

        tasks = order + hop.first_task
        return KnownArrivals(
            np.array(leaving.at_ns), tasks, chosen, clients, count, wake if hop.notify else None
        )

    def _promise(self, machine: Machine, number: int, leaving: Leaving) -> None:
        """Tell the clients of what follows the op ``number`` how early its tasks can come, which come in turn."""
        after = self._next_in_turn(number)
        if after is None or not machine.coordinator.hop(after).plain:
            return
        (client,), clients = (machine.clients[self._program.ops[one].pool] for one in (number, after))
        if not all(one.takes_promises for one in clients):
            return
        first = machine.coordinator.hop(number).first_task
        earliest = client.earliest_ns([first + request for request in leaving.order], leaving.at_ns)
        take = self._taking(machine, number, after)
        for place, own in enumerate(clients):
            own.promise(earliest[place :: len(clients)])
            if take is not None:
                own.hand_on(take)

    def _taking(self, machine: Machine, number: int, after: int) -> Callable[[int, int], None] | None:
        """Return what takes the ends of the op ``after`` before their instants; None where they are waited for.

        That is the client of the op ``number``, where it goes on with them and needs nothing else.
        """
        back = self._next_plain(after)
        if back is None or self._program.ops[back].pool != self._program.ops[number].pool:
            return None
        coordinator, engine = machine.coordinator, machine.engine
        hop, sender = coordinator.hop(back), coordinator.hop(after)
        if not hop.plain or sender.after is not hop:
            return None
        (client,) = machine.clients[self._program.ops[back].pool]
        ready_ns, chosen, first, senders = hop.ready_ns, hop.client, hop.first_task, sender.client
        (rank,) = hop.ranks

        def take(task: int, end_ns: int) -> None:
            request = task - sender.first_task
            ready_ns[request] = end_ns
            chosen[request] = 0
            at_ns = client.submit_ahead(first + request, end_ns, senders, first)
            if hop.notify and at_ns != engine.known_ns[rank]:
                engine.wake(rank, at_ns)

        return take

    def _serve(self, machine: Machine, leaving: Leaving) -> Leaving:
        """Let all requests go through the stages; return when they leave the last one that was computed."""
        segments = self._computable(machine)
        if not segments:
            return leaving
        ways = [self._way(machine, ops[0]) for _, ops in segments]
        ways = ways[: ways.index(None)] if None in ways else ways
        after = self._next_in_turn(segments[-1][1][-1]) if len(ways) == len(segments) else None
        if after is not None and not self._moves_alone(after):
            after = None
        if after is not None:
            ways.append(self._way(machine, after))
        links = [link for way in ways if way is not None for link in _links(way)]
        if not ways or len(set(links)) < len(links):
            return leaving
        for (pool, ops), way in zip(segments, ways, strict=False):
            assert way is not None
            leaving = self._pass_through(machine, pool, ops, self._move(machine, ops[0], way, leaving))
        if after is not None and ways[-1] is not None and ways[-1].paths:
            leaving = self._move(machine, after, ways[-1], leaving)
            leaving.start, leaving.brought = machine.coordinator.brought(after), after
        if machine.fabric is not None:
            machine.fabric.close_known()
        return leaving

    def _computable(self, machine: Machine) -> list[tuple[int, list[int]]]:
        """Return the first pools, with their ops, whose client begins a pass as soon as it can."""
        found = []
        for pool, ops in self._segments:
            (client,) = machine.clients[pool]
            if type(client) is not BatchedClient or not client.at_once:
                break
            found.append((pool, ops))
        return found

    def _next_in_turn(self, last: int | None) -> int | None:
        """Return the only op that all requests take after ``last``, if its clients are chosen in turn."""
        program, number = self._program, self._next_plain(last)
        if number is None:
            return None
        pool = program.pools[program.ops[number].pool]
        in_turn = pool.count == 1 or (isinstance(pool.routing, RoundRobin) and not pool.routing_stale_ns)
        return number if in_turn and self._serves_alone(number) else None

    def _next_alone(self, last: int | None) -> int | None:
        """Return the only op that all requests take after ``last``, if its pool has one client, for other ops too."""
        program, number = self._program, self._next_plain(last)
        if number is None:
            return None
        place = program.ops[number].pool
        pool = program.pools[place]
        single = pool.count == 1 and len(program.sharing(place)) == 1 and not pool.routing_stale_ns
        return number if single and pool.device is None else None

    def _serves_alone(self, number: int) -> bool:
        """Return whether the clients of an op serve no other op."""
        program, place = self._program, self._program.ops[number].pool
        return len(program.sharing(place)) == 1 and sum(op.pool == place for op in program.ops) == 1

    def _next_plain(self, last: int | None) -> int | None:
        """Return the only op that all requests take after ``last``, where it needs nothing else."""
        program = self._program
        after = () if last is None else (last,)
        followers = [number for number, op in enumerate(program.ops) if op.after[:1] == after[:1]]
        if len(followers) != 1:
            return None
        (number,) = followers
        op = program.ops[number]
        plain = op.after == after and op.taken is None and op.decided is None and op.kv is None
        return number if plain else None

    def _moves_alone(self, number: int) -> bool:
        """Return whether nothing but what ``number`` and the stages before it need moves over the network."""
        chain = {number, *(op for _, ops in self._segments for op in ops)}
        others = [op for place, op in enumerate(self._program.ops) if place not in chain]
        return not self._program.hosts and not any(map(_moves, others))

    def _way(self, machine: Machine, number: int) -> _Way | None:
        """Return what moves to an op from its only sender; None where events have to decide."""
        hop = machine.coordinator.hop(number)
        if any(edge.bytes is None for edge in self._program.ops[number].data):
            return None
        if not hop.data:
            return _Way([], []) if hop.plain else None
        assert machine.topology is not None
        found = _Way([], [])
        clients = min(len(hop.submit), len(self._program.requests))
        for _, sender, sizes, _ in hop.data:
            paths = [machine.topology.data_path(sender, hop.first_number + one) for one in range(clients)]
            known = [path for path in paths if path is not None]
            if not known or not any(sizes):
                continue
            if found.paths or len(known) < clients or not all(sizes):
                return None
            found = _Way(sizes, known)
        return found

    def _choose(self, machine: Machine, number: int, leaving: Leaving) -> Ints:
        """Choose the clients of an op, in the order of ``leaving``, and note when it is ready."""
        hop, count = machine.coordinator.hop(number), len(self._program.requests)
        pool = self._program.pools[self._program.ops[number].pool]
        choose, order = hop.choose, np.array(leaving.order, dtype=np.int64)
        if choose is None or (type(pool.routing) is RoundRobin and pool.fleet is None):
            chosen = np.arange(len(order)) % len(hop.submit)
        else:
            chosen = np.array([choose(hop.first_task + one, 0) for one in leaving.order], dtype=np.int64)
        fill(hop.ready_ns, 0, _by_request(count, order, leaving.at_ns))
        hop.client[:] = _by_request(count, order, chosen).tolist()
        return chosen

    def _move(self, machine: Machine, number: int, way: _Way, leaving: Leaving) -> Leaving:
        """Let what an op needs move to its clients; they are chosen as the requests leave the op before."""
        chosen = self._choose(machine, number, leaving).tolist()
        at_ns, order, count = leaving.at_ns, leaving.order, len(self._program.requests)
        if not way.paths:
            return leaving
        assert machine.fabric is not None
        sizes = [way.sizes[request] for request in order]
        came = move_known(machine.fabric, at_ns, [way.paths[one] for one in chosen], sizes)
        transfers = machine.coordinator.transfers
        fill(transfers.delivered_ns[number], 0, _by_request(count, order, came))
        fill(transfers.data.moved_bytes[number], 0, _by_request(count, order, sizes, without=0))
        places = sorted(range(len(came)), key=came.__getitem__)
        return Leaving(
            [came[place] for place in places],
            [order[place] for place in places],
            machine.fabric_rank,
            leaving.start,
            leaving.last,
        )

    def _pass_through(self, machine: Machine, pool: int, ops: Sequence[int], coming: Leaving) -> Leaving:
        """Let requests go through the stages of one pool."""
        coordinator, count = machine.coordinator, len(self._program.requests)
        (client,), tasks = machine.clients[pool], machine.tasks[pool]
        assert isinstance(client, BatchedClient)
        assert isinstance(tasks, BatchedTasks)
        rank = coordinator.hop(ops[0]).first_number
        firsts = [machine.offsets[pool][op] for op in ops]
        ends, order = serve_known(
            *(client, tasks, firsts, coming.at_ns, coming.order), after_ends=coming.rank > rank
        )
        for op, before in zip(ops[1:], ends, strict=False):
            fill(coordinator.ready_ns[op], 0, np.array(before))
            coordinator.client[op][:] = _by_request(count, order, [0] * len(order)).tolist()
        last = ends[-1]
        at_ns = [last[request] for request in order]
        return Leaving(at_ns, order, rank, coordinator.ended(ops[-1]), ops[-1])


def _by_request(
    count: int, order: Sequence[int] | Ints, values: Sequence[int] | Ints, without: int = -1
) -> Ints:
    """Return the values of the requests ``order`` in a column of all, ``without`` where there is none."""
    column = np.full(count, without, dtype=np.int64)
    column[order] = values
    return column


def _links(way: _Way) -> set[int]:
    """Return the links of all of its paths."""
    return {link for path in way.paths for link in path.links}


def _moves(op: Op) -> bool:
    """Return whether anything has to move over the network before an op."""
    return bool(op.data) or op.kv is not None or op.context is not None


def _segments(program: Program, last: int | None) -> list[tuple[int, list[int]]]:
    """Return the passes that all requests need from the op ``last`` on, joined by pool; each pool has one client."""
    if program.network is not None and program.network.changes:
        return []
    segments: list[tuple[int, list[int]]] = []
    after = () if last is None else (last,)
    while True:
        followers = [number for number, op in enumerate(program.ops) if op.after[:1] == after[:1]]
        if len(followers) != 1 or not _is_pass(program, followers[0], after):
            break
        (number,) = followers
        pool = program.ops[number].pool
        if not segments or segments[-1][0] != pool:
            segments.append((pool, []))
        segments[-1][1].append(number)
        after = (number,)
    found = []
    for pool, ops in segments:
        if sum(op.pool == pool for op in program.ops) > len(ops):
            break
        found.append((pool, ops))
    return found


def _is_pass(program: Program, number: int, after: tuple[int, ...]) -> bool:
    """Return whether an op is a pass of the only client of its pool, in every request, after ``after`` alone."""
    op = program.ops[number]
    pool = program.pools[op.pool]
    alone = pool.count == 1 and len(program.sharing(op.pool)) == 1 and not pool.routing_stale_ns
    shares = pool.device is not None or any(other.device == op.pool for other in program.pools)
    always = op.after == after and op.taken is None and op.decided is None and op.at_token is None
    passes = isinstance(op.work, Passes) and isinstance(pool.client, BatchedClientSpec)
    plain = op.kv is None and op.context is None and op.with_op is None
    return alone and always and passes and plain and not shares
