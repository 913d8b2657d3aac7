"""A run of which every routing decision is noted down, and what a router could know at each, recounted."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar
from unittest.mock import patch

from oracles.load_in_hand import InHand, LoadInHand
from oracles.watched_client import simulate_given
from oracles.watched_run import WatchedRun, as_oracle_sees_it, watch

import hermes_flow as hf
from hermes_flow.machine.pool_clients import PoolClients
from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.routing import LoadKeeper, Routable
from hermes_flow.routing import Choose, RoutedPool, RoutingPolicy, start


@dataclass(frozen=True)
class Decision:
    """Client ``client`` of a pool was chosen for a task, among the ``clients`` of its group.

    ``asked`` are those whose unfinished tasks were looked at, with the answers.
    """

    pool: int
    task: int
    now_ns: int
    client: int
    clients: range
    asked: tuple[tuple[int, int], ...]


class Asked:
    """A client of which is noted when it was asked for its unfinished tasks."""

    def __init__(self, client: Routable, number: int, asked: list[tuple[int, int]]) -> None:
        self.number = number
        self.asked = asked
        self.count = client.outstanding
        self.queued_tokens = client.queued_tokens
        if isinstance(client, LoadKeeper):
            self.keep_load = client.keep_load
            self.load = client.load

    def outstanding(self, now_ns: int) -> int:
        self.asked.append((self.number, self.count(now_ns)))
        return self.asked[-1][1]


@dataclass
class Watched:
    """A policy of which is noted, in ``asked``, which clients of a pool of ``clients`` it asks."""

    policy: RoutingPolicy
    clients: int
    asked: list[tuple[int, int]] = field(default_factory=list)
    groups: int = 0

    oracle: ClassVar[bool] = False

    def start(self, pool: RoutedPool) -> Choose:
        size = len(pool.clients)
        first = self.groups * size if size < self.clients else 0
        self.groups += size < self.clients
        asking = [Asked(client, first + place, self.asked) for place, client in enumerate(pool.clients)]
        return start(self.policy, replace(pool, clients=asking))


class RoutedRun:
    """A watched run and the decisions of every pool, by pool."""

    def __init__(self, program: hf.Program) -> None:
        policies = [Watched(pool.routing, pool.count) for pool in program.pools]
        pools = (
            replace(pool, routing=policy) if pool.count > 1 else pool
            for pool, policy in zip(program.pools, policies, strict=True)
        )
        self.program = program
        self.decisions: list[list[Decision]] = [[] for _ in program.pools]
        attach, number = PoolClients.attach, itertools.count()

        def noting_attach(ours: PoolClients, clients: Any, choose: Choose, by_group: list[Choose]) -> None:
            pool = next(number)
            noting = partial(self._noting, pool, policies[pool].asked)
            size = len(clients) // len(by_group)
            groups = [noting(one, range(i * size, (i + 1) * size)) for i, one in enumerate(by_group)]
            attach(ours, clients, noting(choose, range(len(clients))), groups)

        with patch.object(PoolClients, "attach", noting_attach):
            self.watched: WatchedRun = watch(replace(program, pools=tuple(pools)))

    def _noting(self, pool: int, asked: list[tuple[int, int]], choose: Choose, clients: range) -> Choose:
        def noting(task: int, now_ns: int) -> int:
            asked.clear()
            client = choose(task, now_ns)
            self.decisions[pool].append(Decision(pool, task, now_ns, clients[client], clients, tuple(asked)))
            return client

        return noting

    def llm_pools(self) -> Iterator[int]:
        """Yield the LLM pools of several clients."""
        for index, pool in enumerate(self.program.pools):
            if pool.count > 1 and isinstance(pool.client, LLMClientSpec):
                yield index

    def times(self, pool: int, task: int) -> tuple[int, int]:
        """Return when a task of a pool started and finished, in ns."""
        op, request = self.place(pool, task)
        record = self.watched.recording.ops[op]
        return int(record.start_ns[request]), int(record.finish_ns[request])

    def finish_ns(self, pool: int, task: int) -> int:
        """Return when a task of a pool finished."""
        return self.times(pool, task)[1]

    def place(self, pool: int, task: int) -> tuple[int, int]:
        """Return which op of which request a task of a pool is."""
        ops = [index for index, op in enumerate(self.program.ops) if op.pool == pool]
        place, request = divmod(task, len(self.program.requests))
        return ops[place], request

    def input_tokens(self, pool: int, task: int) -> int:
        """Return the tokens of a task's prompt."""
        op, request = self.place(pool, task)
        prompt = self.program.ops[op].llm.prompt
        assert prompt is not None
        return int(prompt[request])

    def seen(self, pool: int) -> Iterator[tuple[Decision, int, list[list[int]]]]:
        """Yield a pool's decisions, each with the instant of what it could see, and the tasks routed by then.

        Live, these are all tasks before it; else those up to the last multiple of the period before it. There is a
        list of tasks for every client of the pool.
        """
        decisions, period_ns = self.decisions[pool], self.program.pools[pool].routing_stale_ns
        for number, decision in enumerate(decisions):
            at_ns, before = decision.now_ns, decisions[:number]
            if period_ns:
                at_ns = (decision.now_ns - 1) // period_ns * period_ns
                before = [other for other in decisions if other.now_ns <= at_ns]
            count = self.program.pools[pool].count
            yield (
                decision,
                at_ns,
                [[other.task for other in before if other.client == client] for client in range(count)],
            )

    def outstanding(self, pool: int) -> Iterator[tuple[Decision, list[int]]]:
        """Yield a pool's decisions, each with the unfinished tasks of the clients it chose among."""
        for decision, at_ns, routed in self.seen(pool):
            yield (
                decision,
                [
                    sum(self.finish_ns(pool, task) >= at_ns for task in routed[client])
                    for client in decision.clients
                ],
            )

    def in_hand(self, pool: int) -> Iterator[tuple[Decision, list[InHand]]]:
        """Yield an LLM pool's decisions, each with what the clients it chose among had in hand."""
        naive = [self._naive(pool, client) for client in range(self.program.pools[pool].count)]
        for decision, at_ns, routed in self.seen(pool):
            figures = []
            for client in decision.clients:
                load, number_of = naive[client]
                figures.append(load.before(at_ns, [number_of[task] for task in routed[client]]))
            yield decision, figures

    def _naive(self, pool: int, client: int) -> tuple[LoadInHand, dict[int, int]]:
        """Return the naive run of one client, and which of its requests each task is."""
        spec = self.program.pools[pool].client
        assert isinstance(spec, LLMClientSpec)
        given = self.watched.given(pool, client)
        requests, policy = as_oracle_sees_it(self.watched, given)
        watched = self.watched
        moves = any(entry.pool == pool for entry in [*watched.brought, *watched.let_go])
        run = partial(simulate_given, watched, pool, client) if moves else None
        load = LoadInHand(spec, requests, policy, run)
        return load, {entry.task: number for number, entry in enumerate(given)}
