"""The event loop: it always fires the resource with the earliest next event, in a repeatable order.

The queue is a heapdict of resources, one entry each, keyed by (time, rank): its size is the number of busy
resources, whatever the number of requests. Arrivals come from a source kept outside the queue and go before
everything else of the same nanosecond. A resource that nobody waits for never enters the queue: it is
advanced when somebody looks at it (``settle``), which cannot change what it does. A resource that fires again and
again at one instant would keep the loop going for ever: it is found, and named in an InternalError.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

from heapdict import heapdict

from hermes_flow.errors import InternalError
from hermes_flow.program.resource import Resource
from hermes_flow.program.units import NEVER, NS_PER_S

_RANK_BITS = 24
_RANK_MASK = (1 << _RANK_BITS) - 1
ARRIVALS_PER_SETTLE = 4096
# A resource does all that is due when it fires, so at one instant it fires at most once for every stage that follows
# another without taking time: a few hundred times in the longest loops that a pipeline may have.
_MOST_FIRES_AT_AN_INSTANT = 10_000


class Source(Protocol):
    """The interface of a source of requests."""

    def next_ns(self) -> int:
        """Return the instant of the next arrival, or NEVER."""

    def fire(self, now_ns: int) -> None:
        """Let the next request arrive."""


class Engine:
    """Runs resources to completion. ``events`` counts fired resources and arrivals."""

    __slots__ = ("_name", "_queue", "_resources", "_source", "events", "now_ns")

    def __init__(self) -> None:
        self.now_ns = 0
        self.events = 0
        self._queue = heapdict()
        self._resources: Sequence[Resource] = ()
        self._source: Source | None = None
        self._name: Callable[[int], str] = lambda rank: f"resource {rank}"

    def attach(
        self, source: Source, resources: Sequence[Resource], name: Callable[[int], str] | None = None
    ) -> None:
        """Set the resources; their order in ``resources`` is their rank at equal instants.

        ``name`` returns what a resource is called in errors, by its rank.
        """
        self._source = source
        self._resources = resources
        self._name = name or self._name

    def reschedule(self, rank: int) -> None:
        """Re-key a resource after something outside its own ``fire`` has changed its next instant."""
        queue = self._queue
        at = self._resources[rank].next_ns()
        if at >= NEVER:
            if rank in queue:
                del queue[rank]
            return
        key = (at << _RANK_BITS) | rank
        if rank not in queue or queue[rank] != key:
            queue[rank] = key

    def run(
        self,
        progress: Callable[[int], None] | None = None,
        watch: Callable[[int], bool] | None = None,
        every: int = ARRIVALS_PER_SETTLE,
    ) -> None:
        """Fire until nothing is left.

        ``progress`` is called with the simulated time after every ``every`` arrivals. ``watch`` is called likewise,
        and once more after the last arrival; every resource is then settled. The run ends where it returns True.

        Raises InternalError if a resource fires without end at one instant.
        """
        source = self._source
        if source is None:
            raise RuntimeError("attach() comes before run()")
        queue = self._queue
        resources = self._resources
        arrivals = 0
        running = True
        while running:
            began_ns, arrived = self.now_ns, arrivals
            for turn in range(_MOST_FIRES_AT_AN_INSTANT):
                arrival = source.next_ns()
                if queue:
                    rank, key = queue.peekitem()
                    at = key >> _RANK_BITS
                    if at < arrival:
                        self.now_ns = at
                        resources[rank].fire(at)
                        self.reschedule(rank)
                        continue
                elif arrival >= NEVER:
                    running = False
                    self.events += turn
                    break
                self.now_ns = arrival
                source.fire(arrival)
                arrivals += 1
                if not arrivals % every or (watch is not None and source.next_ns() >= NEVER):
                    for resource in resources:
                        resource.settle(arrival)
                    if progress is not None:
                        progress(arrival)
                    if watch is not None and watch(arrival):
                        self.events += turn + 1
                        return
            else:
                self.events += _MOST_FIRES_AT_AN_INSTANT
                if self.now_ns == began_ns and arrivals == arrived:
                    self._leave_instant(source)
        for resource in resources:
            resource.settle(NEVER)

    def _leave_instant(self, source: Source) -> None:
        """Go on until the present instant is over, and raise InternalError if one resource keeps it from ending."""
        queue, now_ns = self._queue, self.now_ns
        fires: Counter[int] = Counter()
        while queue:
            rank, key = queue.peekitem()
            if key >> _RANK_BITS != now_ns or source.next_ns() <= now_ns:
                return
            if fires[rank] == _MOST_FIRES_AT_AN_INSTANT:
                raise InternalError(
                    f"at {now_ns / NS_PER_S:.9f} s of simulated time {self._name(rank)} fired "
                    f"{_MOST_FIRES_AT_AN_INSTANT:,} times without any progress"
                )
            fires[rank] += 1
            self.events += 1
            self._resources[rank].fire(now_ns)
            self.reschedule(rank)
