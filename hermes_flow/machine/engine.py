"""The event loop: whichever resource has the earliest next instant is fired, in a total, repeatable order.

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


class Source(Protocol):
    """Where requests come from."""

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
        """Set what there is to run; a resource's place in ``resources`` is its rank among equal instants.

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

    def run(self, progress: Callable[[int], None] | None = None) -> None:
        """Fire until nothing is left; ``progress`` is called with the simulated time now and then.

        Raises InternalError if a resource fires without end at one instant.
        """
        source = self._source
        if source is None:
            raise RuntimeError("attach() comes before run()")
        queue = self._queue
        resources = self._resources
        arrivals = 0
