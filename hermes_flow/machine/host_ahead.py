"""Computes the stages of a host before and behind an LLM without events, where the host always has a free core.

A text stage on a free core begins as soon as it is ready and ends a known time later. So what comes before the LLM
follows from the arrivals alone, and what comes behind it follows from the ends of the answers; the LLM clients need
not be fired for it. Whether a core was always free is known after the run. If none was free at some instant, the run
is repeated with events.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from hermes_flow.machine.coordinator import Coordinator
from hermes_flow.pools.client import PoolClient, PoolTasks
from hermes_flow.pools.sequential.client import SequentialClient, SequentialTasks
from hermes_flow.program.ops import Op
from hermes_flow.program.pools import LLMClientSpec, SequentialClientSpec
from hermes_flow.program.program import Program
from hermes_flow.program.units import NEVER, Ints
from hermes_flow.program.work import CoreTime

# Fewer requests are simulated in milliseconds in any case.
FEWEST_REQUESTS = 1000


class HostAhead:
    """A program of one op of an LLM pool, ``llm``, with text stages of one host ``before`` and ``behind`` it."""

    def __init__(self, program: Program, before: int | None, llm: int, behind: int | None) -> None:
        self.llm = llm
        self._program = program
        self._before = before
        self._behind = behind
        arrival = program.requests.arrival_ns
        self._here = np.ones(len(arrival), dtype=np.bool_)
        self._here[list(program.rejected)] = False
        self._ready = arrival if before is None else arrival + self._service(before)

    def source(self, start: Callable[[int, int], None]) -> AheadArrivals:
        """Return the source of the LLM's tasks; ``start(request, now_ns)`` begins one."""
        order = np.argsort(self._ready, kind="stable")
        order = order[self._here[order]]
        return AheadArrivals(self._ready[order].tolist(), order.tolist(), start)

    def begins_free(self) -> bool:
        """Return whether half of the cores suffice for all that comes before the LLM."""
        return self._before is None or self._fits([(self._before, self._program.requests.arrival_ns)], 2)

    def complete(
        self,
        coordinator: Coordinator,
        tasks: Sequence[PoolTasks],
        clients: Sequence[Sequence[PoolClient]],
        offsets: Sequence[dict[int, int]],
    ) -> bool:
        """Write down when the host did what; return False, and write nothing, if a core was not always free."""
        ready: list[tuple[int, Ints]] = []
        if self._before is not None:
            ready.append((self._before, self._program.requests.arrival_ns))
        if self._behind is not None:
            pool = self._program.ops[self.llm].pool
            none = np.full(len(self._here), -1, dtype=np.int64)
            record = tasks[pool].record(offsets[pool][self.llm], len(self._here), none, none)
            ready.append((self._behind, record.finish_ns))
        if not self._fits(ready):
            return False
        for op, begin in ready:
            pool, service = self._program.ops[op].pool, self._service(op)
            own, (client,) = tasks[pool], clients[pool]
            assert isinstance(own, SequentialTasks)
            assert isinstance(client, SequentialClient)
            first = offsets[pool][op]
            rows = slice(first, first + len(begin))
            coordinator.ready_ns[op] = own.start_ns[rows] = np.where(self._here, begin, -1).tolist()
            coordinator.client[op] = np.where(self._here, 0, -1).tolist()
            own.finish_ns[rows] = np.where(self._here, begin + service, -1).tolist()
            client.busy_ns += int(service[self._here].sum())
            client.served += int(self._here.sum())
        return True

    def _service(self, op: int) -> Ints:
        work = self._program.ops[op].work
        assert isinstance(work, CoreTime)
        return work.service_ns

    def _fits(self, ready: Sequence[tuple[int, Ints]], share: int = 1) -> bool:
        """Return whether the cores, divided by ``share``, are never fewer than the tasks of these ops."""
        here = self._here
        begins = np.sort(np.concatenate([begin[here] for _, begin in ready]))
        # A task without duration needs a free core at its instant, too.
        ends = np.sort(
            np.concatenate([(begin + np.maximum(self._service(op), 1))[here] for op, begin in ready])
        )
        busy = np.arange(1, len(begins) + 1) - np.searchsorted(ends, begins, side="right")
        spec = self._program.pools[self._program.ops[ready[0][0]].pool].client
        assert isinstance(spec, SequentialClientSpec)
        return int(busy.max(initial=0)) <= spec.cores // share


class AheadArrivals:
    """Requests in the order in which they reach the LLM, which need not be that of their arrival."""

    __slots__ = ("_at", "_next", "_order", "_start")

    def __init__(self, at_ns: list[int], order: list[int], start: Callable[[int, int], None]) -> None:
        self._at = [*at_ns, NEVER]
        self._order = order
        self._next = 0
        self._start = start

    def next_ns(self) -> int:
        """Return the instant at which the next request reaches the LLM, or NEVER."""
        return self._at[self._next]

    def fire(self, now_ns: int) -> None:
        """Let the next request reach the LLM."""
        place = self._next
        self._next = place + 1
        self._start(self._order[place], now_ns)


def host_ahead(program: Program) -> HostAhead | None:
    """Return how to compute the program's host ahead; None where it needs events.

    All requests take the same ops, one after the other, nothing moves over a network, and nothing waits for answers.
    """
    ops, requests = program.ops, program.requests
    if program.network is not None or program.hosts or program.load_routes or requests.wait_for_answers:
        return None
    if len(requests) < FEWEST_REQUESTS or not 2 <= len(ops) <= 3:
        return None
    if any(pool.joins is not None for pool in program.pools):
        return None
    chain = all(
        op.after == ((number - 1,) if number else ()) and op.taken is None and _is_plain(op)
        for number, op in enumerate(ops)
    )
    text = [isinstance(op.work, CoreTime) and _is_single_host(program, op) for op in ops]
    if not chain or text.count(False) != 1:
        return None
    llm = text.index(False)
    if not isinstance(program.pools[ops[llm].pool].client, LLMClientSpec):
        return None
    hosts = {op.pool for op in ops if op.pool != ops[llm].pool}
    if llm == 2 or (llm == 0 and len(ops) == 3) or len(hosts) != 1:
        return None
    ahead = HostAhead(program, llm - 1 if llm else None, llm, llm + 1 if llm + 1 < len(ops) else None)
    return ahead if ahead.begins_free() else None


def _is_plain(op: Op) -> bool:
    return (
        op.kv is None
        and op.context is None
        and not op.data
        and op.with_op is None
        and op.decided is None
        and op.at_token is None
    )


def _is_single_host(program: Program, op: Op) -> bool:
    pool = program.pools[op.pool]
    return isinstance(pool.client, SequentialClientSpec) and pool.count == 1 and not pool.routing_stale_ns
