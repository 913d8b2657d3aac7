"""The coordinator: it sends each request through its ops, and handles forks, joins and skipped ops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from hermes_flow.machine.engine import Engine
from hermes_flow.machine.failed_requests import FailedRequests
from hermes_flow.machine.held_contexts import HeldContexts
from hermes_flow.machine.hops import Hop
from hermes_flow.machine.placement import Placement
from hermes_flow.machine.pool_clients import PoolClients
from hermes_flow.machine.transfers import Transfers
from hermes_flow.pools.client import Granted
from hermes_flow.program.columns import column
from hermes_flow.program.ops import Op
from hermes_flow.program.program import Program

if TYPE_CHECKING:
    from hermes_flow.machine.early_starts import EarlyStarts
    from hermes_flow.machine.route_choice import LoadChoice, TakenByLoad


class Coordinator:
    """Dispatches the ops of each request as their predecessors finish.

    A task is numbered op offset + request within its pool. ``ready_ns`` and ``client`` have a row per op and
    an entry per request, -1 where the request does not take the op. ``on_finish(request, now_ns)``, where set,
    is called as each request ends; every pool must then notify. ``placement`` chooses the client of an op,
    ``transfers`` moves what an op needs to its client, and ``failures`` has the requests that go no further.
    """

    def __init__(self, program: Program, engine: Engine, left_out: frozenset[int] = frozenset()) -> None:
        """``left_out`` are ops that nothing follows, and that are computed from the ends of the others."""
        count = len(program.requests)
        self._engine = engine
        self._ops = program.ops
        self._requests = count
        self._successors: list[list[int]] = [[] for _ in program.ops]
        for index, op in enumerate(program.ops):
            for before in op.after if index not in left_out else ():
                self._successors[before].append(index)
        self._entries = [index for index, op in enumerate(program.ops) if not op.after]
        self.load_choices = _load_choices(program, engine)
        self._taken = [self._takers(op) for op in program.ops]
        self._missing = [[len(op.after)] * count if len(op.after) > 1 else None for op in program.ops]
        self._early_starts = starts = _early_starts(program.ops)
        self._watched = [False] * len(program.ops) if starts is None else starts.watched
        self._last = [
            not after or watched for after, watched in zip(self._successors, self._watched, strict=True)
        ]
        sinks = sum(self._last)
        self._sinks_left = [sinks] * count
        self.pools: list[PoolClients] = []
        self.placement = Placement(program, engine, self._taken)
        self.client = self.placement.client
        self._held = HeldContexts(program, engine, self.placement, self._taken)
        self.on_finish: Callable[[int, int], None] | None = None
        self.going_on: set[tuple[int, int]] = set()  # (op, request) that go on, and need no more KV and data
        self.ready_ns = [column(count) for _ in program.ops]
        self.transfers = Transfers(program, engine, self.placement, self._taken, self._successors)
        self.failures = FailedRequests(count, self.placement, self.transfers)
        self._failed = self.failures.reasons
        self._moves = self.transfers.data
        self._kv_source, self._data = self.transfers.kv_source, self._moves.edges
        # Whether prompts of an op wait until a decode client has memory for their KV.
        self._reserves = [self.transfers.reserves_ahead(op) for op in range(len(program.ops))]
        self._hops: list[Hop] = []
        self._only_entry: Hop | None = None

    def _takers(self, op: Op) -> list[bool] | TakenByLoad | None:
        """Return which requests take an op, None for all."""
        taken: list[bool] | None = None if op.taken is None else op.taken.tolist()
        if op.decided is None:
            return taken
        route, outcome = op.decided
        return self.load_choices[route].takers(taken, outcome)

    def attach(
        self,
        pools: list[PoolClients],
        receive_kv: Callable[[int, int], None],
        context_bytes: Callable[[int, int], int],
    ) -> None:
        """Set the pools by number, and what ``Transfers.attach`` needs besides."""
        self.pools = self.placement.pools = pools
        self.transfers.attach(pools, receive_kv, context_bytes, self._go_on)

    def compile(self) -> None:
        """Prepare a hop for each op, after the pools and the network are set and the clients have their ranks."""
        for op, plain in enumerate(self._plain_ops()):
            sends = bool(self._data[op])
            hop = Hop(
                op,
                self.pools[self._ops[op].pool],
                self.ready_ns[op],
                self.client[op],
                plain=plain and not sends,
            )
            if plain and sends:
                hop.data = self._moves.known_data(hop)
            self._hops.append(hop)
        for hop in self._hops:
            taken = self._taken[hop.op]
            if isinstance(taken, list):
                hop.taken = taken
        for hop in self._hops:
            hop.after = None if self._last[hop.op] else self._only(self._successors[hop.op])
            hop.skip = hop.after if self._kv_source[hop.op] is None else None
        entry = self._only(self._entries)
        self._only_entry = entry if entry is not None and entry.taken is None else None

    def _plain_ops(self) -> list[bool]:
        """Return which ops begin on the client that the router chooses, as soon as all before end and data came."""
        return [
            self._kv_source[op] is None
            and not self._reserves[op]
            and self.pools[self._ops[op].pool].fleet is None
            and self.placement.is_free(op)
            and not self._held.concerns(op)
            for op in range(len(self._ops))
        ]

    def _only(self, ops: list[int]) -> Hop | None:
        """Return the hop of the only op of ``ops``, if it begins at once in each request that takes it; else None."""
        if len(ops) != 1 or self._missing[ops[0]] is not None:
            return None
        hop, taken = self._hops[ops[0]], self._taken[ops[0]]
        return hop if taken is None or hop.taken is not None else None

    def arrive(self, request: int, now_ns: int) -> None:
        """Start a request's itinerary."""
        if self._only_entry is not None:
            self._begin(self._only_entry, request, now_ns)
        else:
            self._follow(self._entries, request, now_ns)

    def ended(self, op: int) -> Callable[[int, int], None]:
        """Return what starts what follows an op of a request, ``(request, now_ns)``, that was computed elsewhere."""
        hops, engine = self._hops, self._engine

        def start(request: int, now_ns: int) -> None:
            after = hops[op].after
            if after is None or not (after.taken is None or after.taken[request]):
                self._finished(op, request, now_ns)
            elif after.looks_ahead:
                engine.look_ahead()
                self._begin(after, request, now_ns)
                engine.quiet_ns = -1
            else:
                self._begin(after, request, now_ns)

        return start

    def brought(self, op: int) -> Callable[[int, int], None]:
        """Return what submits a request's task of an op, whose client was chosen and has what the op needs."""
        hop, engine = self._hops[op], self._engine

        def start(request: int, now_ns: int) -> None:
            chosen = hop.client[request]
            at_ns = hop.submit[chosen](hop.first_task + request, now_ns)
            if hop.notify and at_ns != engine.known_ns[hop.ranks[chosen]]:
                engine.wake(hop.ranks[chosen], at_ns)

        return start

    def hop(self, op: int) -> Hop:
        """Return what starts an op; it is there after ``compile``."""
        return self._hops[op]

    def done(self, ops: list[int]) -> Callable[[int, int], None]:
        """Return the callback ``(task, now_ns)`` for the end of a task, for clients of a pool that serves ``ops``."""
        requests, hops, begin, engine = self._requests, self._hops, self._begin, self._engine

        def finished(task: int, now_ns: int) -> None:
            place, request = divmod(task, requests)
            op = ops[place]
            after = hops[op].after
            while after is not None and after.taken is not None and not after.taken[request]:
                after = after.skip
            if after is not None:
                begin(after, request, now_ns)
            else:
                engine.quiet_ns = -1  # what follows may be several things
                self._finished(op, request, now_ns)

        return finished

    def forget(self, request: int) -> None:
        """Forget where a request was that was taken back (``FailedRequests.recall``); it may arrive again."""
        for op, missing in enumerate(self._missing):
            self.client[op][request] = self.ready_ns[op][request] = -1
            self.going_on.discard((op, request))
            if missing is not None:
                missing[request] = len(self._ops[op].after)
        self._sinks_left[request] = sum(self._last)
        for choice in self.load_choices:
            choice.forget(request)

    def watched_tokens(self, ops: list[int]) -> dict[int, list[int]]:
        """Return, by task, the tokens of ``ops`` at which other ops begin, the first token last."""
        return {} if self._early_starts is None else self._early_starts.by_task(ops, self._requests)

    def written(self, ops: list[int]) -> Callable[[int, int, int], None]:
        """Return the callback ``(task, token, now_ns)`` for generated tokens at which other ops begin."""
        requests, starts = self._requests, self._early_starts
        assert starts is not None

        def has_written(task: int, token: int, now_ns: int) -> None:
            place, request = divmod(task, requests)
            self._complete(starts.beginning(ops[place], request, token), request, now_ns)

        return has_written

    def _begin(self, hop: Hop, request: int, now_ns: int) -> None:
        """Start an op that all before are done of: the same as ``_ready``, without what a plain op never needs."""
        if self._failed or not (hop.plain or hop.data):
            self._ready(hop.op, request, now_ns)
            return
        hop.ready_ns[request] = now_ns
        task = hop.first_task + request
        hop.client[request] = chosen = 0 if hop.choose is None else hop.choose(task, now_ns)
        if hop.data:
            came_ns = self._moves.pass_known(hop, request, now_ns) if self._engine.quiet_ns > now_ns else -1
            if came_ns >= 0:
                now_ns = came_ns  # nobody asks for the task before then
            elif self._moves.fetch_known(hop, request, now_ns):
                hop.await_data[chosen](task)
                return
        at_ns = hop.submit[chosen](task, now_ns)
        if hop.notify and at_ns != self._engine.known_ns[hop.ranks[chosen]]:
            self._engine.wake(hop.ranks[chosen], at_ns)

    def renew(self, op: int, first: int, count: int) -> None:
        """Forget what ``count`` requests from ``first`` on did in an op: others take their numbers."""
        self.ready_ns[op][first : first + count] = column(count)
        self.client[op][first : first + count] = [-1] * count

    def resume(self, op: int, request: int, now_ns: int) -> None:
        """Start an op that is ready, and that waited for a client."""
        if request not in self._failed:
            self._start(op, request, now_ns)

    @property
    def requests(self) -> int:
        """The number of requests."""
        return self._requests

    def restart(self, op: int, request: int, now_ns: int) -> None:
        """Start an op anew whose task was lost, or let it wait for a client."""
        fleet = self.pools[self._ops[op].pool].fleet
        if fleet is None or fleet.readmits(op, request, now_ns):
            self.resume(op, request, now_ns)

    def noting_ends(self, ops: list[int], done: Callable[[int, int], None]) -> Callable[[int, int], None]:
        """Return ``done`` for a pool that serves ``ops`` and whose clients come and go: its fleet is told first."""
        requests = self._requests
        receivers = {
            op: [later for later in self._successors[op] if self._kv_source[later] == op] for op in ops
        }

        def finished(task: int, now_ns: int) -> None:
            place, request = divmod(task, requests)
            op = ops[place]
            fleet, client = self.pools[self._ops[op].pool].fleet, self.client[op][request]
            assert fleet is not None
            for later in receivers[op]:
                taken = self._taken[later]
                if taken is None or taken[request]:
                    fleet.keep_kv(client, later, request)
            fleet.over(client, op, request, now_ns)
            done(task, now_ns)

        return finished

    def _ready(self, op: int, request: int, now_ns: int) -> None:
        """Start an op that all before are done of, unless it waits for a client of a fleet."""
        if self._failed and request in self._failed and self.client[op][request] < 0:
            return
        self.ready_ns[op][request] = now_ns
        fleet = self.pools[self._ops[op].pool].fleet
        if fleet is None or fleet.admits(op, request, now_ns):
            self._start(op, request, now_ns)

    def _start(self, op: int, request: int, now_ns: int) -> None:
        """Start an op that is ready on a client, or move to its client what it needs first."""
        pool = self.pools[self._ops[op].pool]
        source = self._kv_source[op]
        goes_on = bool(self.going_on) and (op, request) in self.going_on
        if source is not None and not goes_on:
            self.transfers.send_kv(source, op, request, now_ns)
            return
        if self._held.prefills and self._held.ask(op, request, now_ns):
            return
        chosen = self.client[op][request]
        if chosen < 0:  # else: it has joined a queue before it was ready
            chosen = self.placement.place(op, request, now_ns)
            if self._reserves[op] and self.transfers.reserve_ahead(op, request, now_ns):
                self.placement.hold(op, request, now_ns)
                return
            if self._data[op] and not goes_on and self._moves.fetch(op, request, now_ns):
                pool.clients[chosen].await_data(pool.offsets[op] + request)
                return
        elif self._data[op] and not goes_on and self._moves.fetch(op, request, now_ns):
            return
        if self.placement.joining[op]:
            self.placement.join(op, request, now_ns)
        self.placement.submit_to(pool, chosen, pool.offsets[op] + request, now_ns)

    def granted(self, ops: list[int]) -> Granted:
        """Return the callback for a task that has blocks, for clients of a pool that serves ``ops``."""
        kv, requests = self.transfers.granted(ops), self._requests
        if not any(self._held.concerns(op) for op in ops):
            return kv

        def has_blocks(task: int, present: int, brings: int | None, now_ns: int) -> None:
            place, request = divmod(task, requests)
            retrieval = self._held.granted(ops[place], request)
            if retrieval is not None and request not in self._failed:
                self._start(retrieval, request, now_ns)

        return has_blocks

    def _go_on(self, op: int, request: int, now_ns: int) -> None:
        """Go on with a prompt that waited for memory on a decode client."""
        if request in self._failed:
            return
        if not (self._data[op] and self._moves.fetch(op, request, now_ns)):
            self.placement.submit(op, request, now_ns)

    def _finished(self, op: int, request: int, now_ns: int) -> None:
        successors = self._successors[op]
        if self._last[op]:
            self._at_end(request, now_ns)
            if not successors:
                return
            starts = self._early_starts
            assert starts is not None  # else: nothing follows the last ops
            successors = [reader for reader in successors if not starts.begun(op, request, reader)]
        self._complete(successors, request, now_ns)

    def _complete(self, successors: list[int], request: int, now_ns: int) -> None:
        """Something that these ops waited for is there."""
        ready = []
        for successor in successors:
            missing = self._missing[successor]
            if missing is not None:
                missing[request] -= 1
                if missing[request]:
                    continue
            ready.append(successor)
        self._follow(ready, request, now_ns)

    def _follow(self, ready: list[int], request: int, now_ns: int) -> None:
        """Start ops that all before are done of, and those behind the ones that the request skips."""
        left = ready[::-1]  # a stack: a loop may skip hundreds of turns
        while left:
            op = left.pop()
            taken = self._taken[op]
            if taken is None or taken[request]:
                self._begin(self._hops[op], request, now_ns)
                continue
            if self._kv_source[op] is not None:
                self.transfers.skipped(op, request, now_ns)
            successors = self._successors[op]
            if self._last[op]:
                self._at_end(request, now_ns)
            for successor in reversed(successors):
                missing = self._missing[successor]
                if missing is not None:
                    missing[request] -= 1
                    if missing[request]:
                        continue
                left.append(successor)

    def _at_end(self, request: int, now_ns: int) -> None:
        """One of a request's last ops is done."""
        if self.on_finish is not None:
            self._sinks_left[request] -= 1
            if not self._sinks_left[request] and request not in self._failed:
                self.on_finish(request, now_ns)


def _load_choices(program: Program, engine: Engine) -> list[LoadChoice]:
    if not program.load_routes:
        return []
    from hermes_flow.machine.route_choice import LoadChoice

    return [LoadChoice(route, len(program.requests), engine) for route in program.load_routes]


def _early_starts(ops: Sequence[Op]) -> EarlyStarts | None:
    if all(op.at_token is None for op in ops):
        return None
    from hermes_flow.machine.early_starts import EarlyStarts

    return EarlyStarts(ops)
