"""Places the ops of requests on clients: it chooses the client of each, and submits the task there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from hermes_flow.machine.engine import Engine
from hermes_flow.machine.pool_clients import HoldingClient, PoolClients
from hermes_flow.program.program import Program

if TYPE_CHECKING:
    from hermes_flow.machine.route_choice import TakenByLoad


class Placement:
    """The client of each op of each request: ``client`` has a row per op and an entry per request, −1 before.

    ``taken`` tells by op which requests take it, None for all. An op's prompts in ``joining`` take their places in
    the queues of their clients as it begins. The prefills in ``beside`` go on from what an op finds, on the clients
    that its stores stand next to: they decide which store is asked.
    """

    def __init__(
        self, program: Program, engine: Engine, taken: Sequence[list[bool] | TakenByLoad | None]
    ) -> None:
        self._engine = engine
        self._ops = program.ops
        self._taken = taken
        self._with_op = [op.with_op for op in program.ops]
        self.client = [[-1] * len(program.requests) for _ in program.ops]
        self.pools: list[PoolClients] = []
        self.joining: list[list[int]] = [[] for _ in program.ops]
        self.beside: list[list[int]] = [[] for _ in program.ops]
        for index, op in enumerate(program.ops):
            if op.context is None:
                continue
            if op.context.joins_early:
                self.joining[op.context.source].append(index)
            if program.pools[program.ops[op.context.source].pool].beside == op.pool:
                self.beside[op.context.source].append(index)

    def is_free(self, op: int) -> bool:
        """Return whether the router alone chooses the client of an op, which has no place in a queue before."""
        return (
            self._with_op[op] is None
            and not self.joining[op]
            and not self.beside[op]
            and all(op not in joining for joining in self.joining)
            and all(op not in beside for beside in self.beside)
        )

    def pool_of(self, op: int) -> int:
        """Return the pool that serves an op."""
        return self._ops[op].pool

    def place(self, op: int, request: int, now_ns: int) -> int:
        """Choose the client that serves an op."""
        pool, with_op = self.pools[self._ops[op].pool], self._with_op[op]
        chosen = -1 if with_op is None else pool.still_up(self.client[with_op][request])
        if self.beside[op]:
            chosen = self._place_beside(op, request, now_ns)
        if chosen < 0:
            chosen = pool.choose(pool.offsets[op] + request, now_ns)
        else:
            pool.on_placed(now_ns)
        self.client[op][request] = chosen
        if pool.fleet is not None:
            pool.fleet.take(chosen, op, request)
        return chosen

    def place_on(self, chosen: int, op: int, request: int, now_ns: int) -> None:
        """Let a given client of a fleet serve an op that is started next."""
        pool = self.pools[self._ops[op].pool]
        pool.on_placed(now_ns)
        self.client[op][request] = chosen
        assert pool.fleet is not None
        pool.fleet.take(chosen, op, request)

    def submit(self, op: int, request: int, now_ns: int) -> None:
        """Submit a task to the client on which it was placed, as what it waited for is there."""
        pool = self.pools[self._ops[op].pool]
        self.submit_to(pool, self.client[op][request], pool.offsets[op] + request, now_ns)

    def submit_to(self, pool: PoolClients, chosen: int, task: int, now_ns: int) -> None:
        """Submit a task of a pool, by its number there, to a client of the pool."""
        at_ns = pool.clients[chosen].submit(task, now_ns)
        if pool.notify:
            self._engine.wake(pool.ranks[chosen], at_ns)

    def hold(self, op: int, request: int, now_ns: int) -> None:
        """Let a prompt take its place in the queue of the client on which it was placed, before it is ready."""
        pool = self.pools[self._ops[op].pool]
        client = cast(HoldingClient, pool.clients[self.client[op][request]])
        client.hold(pool.offsets[op] + request, now_ns)

    def join(self, op: int, request: int, now_ns: int) -> None:
        """Let prompts take their places in queues while ``op`` looks their contexts up."""
        for prompt in self.joining[op]:
            taken = self._taken[prompt]
            if taken is None or taken[request]:
                fleet = self.pools[self._ops[prompt].pool].fleet
                if fleet is not None and not fleet.is_open(request):
                    continue  # it takes its place when it is ready and a client is up
                if self.client[prompt][request] < 0:  # else: its store was chosen with it
                    self.place(prompt, request, now_ns)
                self.hold(prompt, request, now_ns)

    def take_back(self, op: int, request: int, now_ns: int) -> None:
        """Take a task back from the client that it was routed to."""
        pool, chosen = self.pools[self._ops[op].pool], self.client[op][request]
        if pool.fleet is not None and not pool.fleet.forget(chosen, op, request, now_ns):
            return  # it was over there
        at_ns = pool.clients[chosen].withdraw(pool.offsets[op] + request, now_ns)
        if pool.notify:
            self._engine.wake(pool.ranks[chosen], at_ns)

    def _place_beside(self, op: int, request: int, now_ns: int) -> int:
        """Choose the client that goes on from what a store finds, and so the store next to it; −1 for any store."""
        for prefill in self.beside[op]:
            taken = self._taken[prefill]
            if taken is None or taken[request]:
                chosen = self.client[prefill][request]
                if chosen >= 0:  # it has blocks there for what is read
                    return chosen
                chosen = self.place(prefill, request, now_ns)
                if prefill not in self.joining[op]:  # else it takes its place in the queue
                    pool = self.pools[self._ops[prefill].pool]
                    pool.clients[chosen].await_data(pool.offsets[prefill] + request)
                return chosen
        return -1
