"""Computes the stages of a host before and behind all others without events, where the host always has a free core.

A text stage on a free core begins as soon as it is ready and ends a known time later. So the stages that come first
follow from the arrivals alone, and those that nothing follows from the ends of the others; nobody need be fired for
them. Other stages that follow the first ones may be computed likewise (open_stages.py). Whether a core was always
free is known after the run. If none was free at some instant, the run is repeated with events.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hermes_flow.machine.arrivals import AheadArrivals, KnownArrivals
from hermes_flow.machine.coordinator import Coordinator
from hermes_flow.machine.open_stages import Leaving, OpenStages
from hermes_flow.pools.client import PoolClient
from hermes_flow.pools.sequential.client import SequentialClient, SequentialTasks
from hermes_flow.pools.tasks import PoolTasks
from hermes_flow.program.columns import fill
from hermes_flow.program.ops import Op
from hermes_flow.program.pools import SequentialClientSpec
from hermes_flow.program.program import Program
from hermes_flow.program.units import Ints
from hermes_flow.program.work import CoreTime

if TYPE_CHECKING:
    from hermes_flow.machine.wiring import Machine

# Fewer requests are simulated in milliseconds in any case.
FEWEST_REQUESTS = 1000


class HostAhead:
    """The host ``pool`` of a program, which serves ``before``, a chain of ops from the arrival on, and ``behind``.

    Nothing follows the ops ``behind``. All other ops run with events, but for those that open_stages.py computes.
    Without a host, ``pool`` is −1.
    """

    def __init__(self, program: Program, pool: int, before: Sequence[int], behind: Sequence[int]) -> None:
        self.pool = pool
        self.behind = frozenset(behind)
        self._program = program
        self._before = before
        self._open = OpenStages(program, before[-1] if before else None)
        arrival = program.requests.arrival_ns
        self._here = np.ones(len(arrival), dtype=np.bool_)
        self._here[list(program.rejected)] = False
        self._ends = [arrival]  # of the arrival, and of each op before all others
        for op in before:
            self._ends.append(self._ends[-1] + self._service(op))

    def source(self, machine: Machine) -> tuple[AheadArrivals | KnownArrivals, int]:
        """Return the source of what follows the stages that are computed ahead, and its rank among resources."""
        # Tasks that end together leave the host in the order in which they came to it.
        order = np.lexsort(self._ends) if self._before else np.arange(len(self._here))
        order = order[self._here[order]]
        coordinator = machine.coordinator
        last = self._before[-1] if self._before else None
        start = coordinator.arrive if last is None else coordinator.ended(last)
        # What the host hands on comes when the host would deliver it.
        rank = 0 if last is None else coordinator.pools[self.pool].first_number
        leaving = Leaving(self._ends[-1][order].tolist(), order.tolist(), rank, start, last)
        return self._open.source(machine, leaving)

    def begins_free(self) -> bool:
        """Return whether half of the cores suffice for all that comes before the others."""
        return not self._before or self._fits(self._first_tasks(), 2)

    def complete(
        self,
        coordinator: Coordinator,
        tasks: Sequence[PoolTasks],
        clients: Sequence[Sequence[PoolClient]],
        offsets: Sequence[dict[int, int]],
    ) -> bool:
        """Write down when the host did what; return False, and write nothing, if a core was not always free."""
        if self.pool < 0:
            return True
        if coordinator.failures.reasons:
            return False
        served = [*self._first_tasks(), *self._last_tasks(coordinator, tasks, offsets)]
        if not self._fits(served):
            return False
        own, (client,) = tasks[self.pool], clients[self.pool]
        assert isinstance(own, SequentialTasks)
        assert isinstance(client, SequentialClient)
        for op, begin, here in served:
            service = self._service(op)
            first = offsets[self.pool][op]
            starts = np.where(here, begin, -1)
            fill(coordinator.ready_ns[op], 0, starts)
            fill(own.start_ns, first, starts)
            coordinator.client[op] = np.where(here, 0, -1).tolist()
            fill(own.finish_ns, first, np.where(here, begin + service, -1))
            client.busy_ns += int(service[here].sum())
            client.served += int(here.sum())
        return True

    def _first_tasks(self) -> list[_Served]:
        return [(op, begin, self._here) for op, begin in zip(self._before, self._ends, strict=False)]

    def _last_tasks(
        self, coordinator: Coordinator, tasks: Sequence[PoolTasks], offsets: Sequence[dict[int, int]]
    ) -> list[_Served]:
        """Return the ops that nothing follows; an op that a request skips ends when it could have begun."""
        ends: dict[int, Ints] = dict(zip(self._before, self._ends[1:], strict=True))
        served = []
        for number, op in enumerate(self._program.ops):
            if number in ends:
                continue
            before = np.maximum.reduce([ends[one] for one in op.after]) if op.after else self._ends[0]
            if number in self.behind:
                here = self._here if op.taken is None else self._here & op.taken
                served.append((number, before, here))
                continue
            client = np.array(coordinator.client[number], dtype=np.int64)
            record = tasks[op.pool].record(offsets[op.pool][number], len(client), client, client)
            ends[number] = np.where(client >= 0, record.finish_ns, before)
        return served

    def _service(self, op: int) -> Ints:
        work = self._program.ops[op].work
        assert isinstance(work, CoreTime)
        return work.service_ns

    def _fits(self, served: Sequence[_Served], share: int = 1) -> bool:
        """Return whether the cores, divided by ``share``, are never fewer than the tasks of these ops."""
        begins = np.sort(np.concatenate([begin[here] for _, begin, here in served]))
        # A task without duration needs a free core at its instant, too.
        ends = np.sort(
            np.concatenate([(begin + np.maximum(self._service(op), 1))[here] for op, begin, here in served])
        )
        busy = np.arange(1, len(begins) + 1) - np.searchsorted(ends, begins, side="right")
        spec = self._program.pools[self.pool].client
        assert isinstance(spec, SequentialClientSpec)
        return int(busy.max(initial=0)) <= spec.cores // share


_Served = tuple[
    int, Ints, NDArray[np.bool_]
]  # an op, when each of its tasks begins, and which requests take it


def host_ahead(program: Program) -> HostAhead | None:
    """Return what of a program is computed ahead; None where all of it needs events.

    Nothing waits for answers, no op begins within another one, nothing moves over a network from or to the host, and
    no client comes or goes.
    A run in which requests fail is repeated with events, too.
    """
    ops, requests = program.ops, program.requests
    if program.load_routes or program.followed or len(requests) < FEWEST_REQUESTS:
        return None
    if any(pool.joins is not None or pool.fleet is not None for pool in program.pools):
        return None
    if any(op.at_token is not None for op in ops):
        return None
    ahead = _with_host(program) or HostAhead(program, -1, (), ())
    return ahead if ahead.begins_free() else None


def _with_host(program: Program) -> HostAhead | None:
    """Return how to compute the stages of the program's host ahead; None where it has none, or they need events."""
    ops = program.ops
    text = [_is_text(program, op) for op in ops]
    sends = {edge.source for op in ops for edge in op.data}
    if not any(text) or all(text):
        return None
    before = _first_ops(ops, text)
    followed = {before for op in ops for before in op.after}
    behind = [number for number in range(len(ops)) if text[number] and number not in followed]
    if before:
        behind = [number for number in behind if ops[number].pool == ops[before[0]].pool]
    own = {*before, *behind}
    hosts = {ops[number].pool for number in own}
    if len(hosts) != 1 or own & sends:
        return None
    (pool,) = hosts
    if any(op.pool == pool and number not in own for number, op in enumerate(ops)):
        return None
    return HostAhead(program, pool, before, behind)


def _first_ops(ops: Sequence[Op], text: Sequence[bool]) -> list[int]:
    """Return the text stages of one pool with which every request begins, one after the other."""
    entries = [number for number, op in enumerate(ops) if not op.after]
    found: list[int] = []
    while len(entries) == 1:
        (number,) = entries
        op = ops[number]
        if not text[number] or op.taken is not None or op.after != tuple(found[-1:]):
            break
        if found and op.pool != ops[found[0]].pool:
            break
        found.append(number)
        entries = [follower for follower, other in enumerate(ops) if number in other.after]
    return found


def _is_text(program: Program, op: Op) -> bool:
    """Return whether an op is nothing but time on a core of the only host of its pool."""
    pool = program.pools[op.pool]
    plain = op.kv is None and op.context is None and not op.data and op.with_op is None and op.decided is None
    host = isinstance(pool.client, SequentialClientSpec) and pool.count == 1
    if pool.device is not None or any(other.device == op.pool for other in program.pools):
        return False
    return plain and host and isinstance(op.work, CoreTime)
