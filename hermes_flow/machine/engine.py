"""The event loop: whichever resource has the earliest next instant is fired, in a total, repeatable order.

The queue is a heapdict of resources, one entry each, keyed by (time, rank): its size is the number of busy
resources, whatever the number of requests. Arrivals come from a source kept outside the queue and go before
everything else of the same nanosecond. A resource that nobody waits for never enters the queue: it is
advanced when somebody looks at it (``settle``), which cannot change what it does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from heapdict import heapdict

from hermes_flow.program.resource import Resource
from hermes_flow.program.units import NEVER

_RANK_BITS = 24
_RANK_MASK = (1 << _RANK_BITS) - 1
_ARRIVALS_PER_SETTLE = 4096


class Source(Protocol):
    """Where requests come from."""

    def next_ns(self) -> int:
        """Return the instant of the next arrival, or NEVER."""

    def fire(self, now_ns: int) -> None:
        """Let the next request arrive."""


class Engine:
    """Runs resources to completion. ``events`` counts fired resources and arrivals."""

    __slots__ = ("_queue", "_resources", "_source", "events", "now_ns")

    def __init__(self) -> None:
        self.now_ns = 0
        self.events = 0
        self._queue = heapdict()
        self._resources: Sequence[Resource] = ()
        self._source: Source | None = None

    def attach(self, source: Source, resources: Sequence[Resource]) -> None:
        """Set what there is to run; a resource's place in ``resources`` is its rank among equal instants."""
        self._source = source
        self._resources = resources

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

    def run(self, progress: Callable[[int], None] | None = None) -> None:
        """Fire until nothing is left; ``progress`` is called with the simulated time now and then."""
        source = self._source
        if source is None:
            raise RuntimeError("attach() comes before run()")
        queue = self._queue
        resources = self._resources
        arrivals = 0
        while True:
            arrival = source.next_ns()
            if queue:
                rank, key = queue.peekitem()
                at = key >> _RANK_BITS
                if at < arrival:
                    self.now_ns = at
                    self.events += 1
                    resources[rank].fire(at)
                    self.reschedule(rank)
                    continue
            elif arrival >= NEVER:
                break
            self.now_ns = arrival
            source.fire(arrival)
            arrivals += 1
            if not arrivals % _ARRIVALS_PER_SETTLE:
                for resource in resources:
                    resource.settle(arrival)
                if progress is not None:
                    progress(arrival)
        for resource in resources:
            resource.settle(NEVER)
        self.events += arrivals
