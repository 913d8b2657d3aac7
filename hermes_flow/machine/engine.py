"""The event loop: it always fires the resource with the earliest next event, in a repeatable order.

Events are keyed by (time, rank). A resource whose next event can move in either direction has one entry in a heapdict
and is re-keyed there. A resource whose events are fixed once they are known (``fixed``) waits in a plain heap beside
it, in the same order. Arrivals come from a source kept outside both and go before everything else of the same
nanosecond. A resource that nobody waits for never enters a queue: it is advanced when somebody looks at it
(``settle``), which cannot change what it does. A resource that fires again and again at one instant would keep the
loop going for ever: it is found, and named in an InternalError.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import Final, Protocol

from heapdict import heapdict

from hermes_flow.errors import InternalError
from hermes_flow.program.resource import Resource
from hermes_flow.program.units import NEVER, NS_PER_S

_RANK_BITS: Final = 24
_RANK_MASK: Final = (1 << _RANK_BITS) - 1
_NO_KEY: Final = NEVER << _RANK_BITS
ARRIVALS_PER_SETTLE = 4096
# A resource does all that is due when it fires, so at one instant it fires at most once for every stage that follows
# another without taking time: a few hundred times in the longest loops that a pipeline may have.
_MOST_FIRES_AT_AN_INSTANT: Final = 10_000


class Source(Protocol):
    """The interface of a source of requests."""

    def next_ns(self) -> int:
        """Return the instant of the next arrival, or NEVER."""

    def fire(self, now_ns: int) -> None:
        """Let the next request arrive."""


class Engine:
    """Runs resources to completion. ``events`` counts fired resources and arrivals.

    ``known_ns`` has, by rank, the instant at which each resource is queued, NEVER for one that is not. A caller that
    changes a resource calls ``wake`` with its next instant, unless that is the known one.

    ``quiet_ns`` is −1, but while ``look_ahead`` was called: nothing is known to happen before it. Who is about to
    start one thing and nothing else at this instant may let all happen at once that follows from it before then.
    """

    __slots__ = (
        "_fixed",
        "_instants",
        "_name",
        "_queue",
        "_resources",
        "_source",
        "_source_rank",
        "events",
        "known_ns",
        "now_ns",
        "quiet_ns",
    )

    def __init__(self) -> None:
        self.now_ns = 0
        self.events = 0
        self.known_ns: list[int] = []
        self.quiet_ns = -1
        self._queue = heapdict()  # rank → key of a resource whose next event can move
        self._instants: list[int] = []  # heap of keys; outdated where known_ns has another instant
        self._fixed: list[bool] = []
        self._resources: Sequence[Resource] = ()
        self._source: Source | None = None
        self._source_rank = 0
        self._name: Callable[[int], str] = lambda rank: f"resource {rank}"

    def attach(
        self,
        source: Source,
        resources: Sequence[Resource],
        name: Callable[[int], str] | None = None,
        source_rank: int = 0,
    ) -> None:
        """Set the resources; their order in ``resources`` is their rank at equal instants.

        ``name`` returns what a resource is called in errors, by its rank. Arrivals go before the resources from
        ``source_rank`` on: before all, unless the source stands in for a resource.
        """
        self._source = source
        self._source_rank = source_rank
        self._resources = resources
        self._name = name or self._name
        self._fixed = [getattr(resource, "fixed", False) for resource in resources]
        self.known_ns = [NEVER] * len(resources)

    def reschedule(self, rank: int) -> None:
        """Ask a resource for its next instant after something outside its own ``fire`` has changed it."""
        self.wake(rank, self._resources[rank].next_ns())

    def wake(self, rank: int, at_ns: int | None) -> None:
        """Let a resource fire at ``at_ns``, which is its next instant; None asks the resource for it.

        A fixed resource also keeps what it has queued for later.
        """
        if at_ns is None:
            at_ns = self._resources[rank].next_ns()
        known_ns = self.known_ns
        if self._fixed[rank]:
            if at_ns < known_ns[rank]:
                known_ns[rank] = at_ns
                heappush(self._instants, at_ns << _RANK_BITS | rank)
        elif at_ns != known_ns[rank]:
            known_ns[rank] = at_ns
            if at_ns < NEVER:
                self._queue[rank] = at_ns << _RANK_BITS | rank
            else:
                del self._queue[rank]

    def look_ahead(self) -> None:
        """Set ``quiet_ns`` from within the fire of the source; it must be −1 again when that is over.

        Also from within that of a resource which has no further instant, unless something else happens before.
        """
        assert self._source is not None
        at_ns, heap = self._source.next_ns(), self._queue.heap
        if self._instants and self._instants[0] >> _RANK_BITS < at_ns:
            at_ns = self._instants[0] >> _RANK_BITS
        if heap and heap[0][0] >> _RANK_BITS < at_ns:
            at_ns = heap[0][0] >> _RANK_BITS
        self.quiet_ns = at_ns

    def waits_only_for(self, ranks: frozenset[int]) -> bool:
        """Return whether no request arrives any more, and nothing but the resources ``ranks`` is queued."""
        assert self._source is not None
        if self._source.next_ns() < NEVER:
            return False
        return all(at >= NEVER or rank in ranks for rank, at in enumerate(self.known_ns))

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
        next_arrival, source_rank = source.next_ns, self._source_rank
        fires = [resource.fire for resource in self._resources]
        heap, popitem = self._queue.heap, self._queue.popitem
        instants, known_ns = self._instants, self.known_ns
        arrivals = 0
        while True:
            began_ns, arrived = self.now_ns, arrivals
            outdated = 0
            for turn in range(_MOST_FIRES_AT_AN_INSTANT):
                arrival = next_arrival()
                key = instants[0] if instants else _NO_KEY
                fixed = True
                if heap and heap[0][0] < key:
                    key, fixed = heap[0][0], False
                at = key >> _RANK_BITS
                if at < arrival or (at == arrival < NEVER and key & _RANK_MASK < source_rank):
                    # What _take and wake do, for the two queues.
                    rank = key & _RANK_MASK
                    if not fixed:
                        popitem()
                    else:
                        heappop(instants)
                        if at != known_ns[rank]:
                            outdated += 1
                            continue
                    known_ns[rank] = NEVER
                    self.now_ns = at
                    then = fires[rank](at)
                    if fixed and then is not None:
                        if then < known_ns[rank]:
                            known_ns[rank] = then
                            heappush(instants, then << _RANK_BITS | rank)
                    else:
                        self.wake(rank, then)
                    continue
                if arrival >= NEVER:
                    self.events += turn - outdated
                    self._settle(NEVER)
                    return
                self.now_ns = arrival
                source.fire(arrival)
                arrivals += 1
                if not arrivals % every or (watch is not None and next_arrival() >= NEVER):
                    self._settle(arrival)
                    if progress is not None:
                        progress(arrival)
                    if watch is not None and watch(arrival):
                        self.events += turn + 1 - outdated
                        return
            self.events += _MOST_FIRES_AT_AN_INSTANT - outdated
            if self.now_ns == began_ns and arrivals == arrived:
                self._leave_instant(source)

    def _settle(self, now_ns: int) -> None:
        for resource in self._resources:
            resource.settle(now_ns)

    def _take(self, rank: int, at_ns: int) -> bool:
        """Take the first entry of both queues off; return False if it is outdated."""
        if not self._fixed[rank]:
            self._queue.popitem()
        else:
            heappop(self._instants)
            if at_ns != self.known_ns[rank]:
                self.events -= 1
                return False
        self.known_ns[rank] = NEVER
        self.now_ns = at_ns
        return True

    def _leave_instant(self, source: Source) -> None:
        """Go on until the present instant is over, and raise InternalError if one resource keeps it from ending."""
        heap, instants, now_ns = self._queue.heap, self._instants, self.now_ns
        fires: Counter[int] = Counter()
        while heap or instants:
            key = min(heap[0][0] if heap else _NO_KEY, instants[0] if instants else _NO_KEY)
            rank = key & _RANK_MASK
            if key >> _RANK_BITS != now_ns or source.next_ns() <= now_ns:
                return
            if fires[rank] == _MOST_FIRES_AT_AN_INSTANT:
                raise InternalError(
                    f"at {now_ns / NS_PER_S:.9f} s of simulated time {self._name(rank)} fired "
                    f"{_MOST_FIRES_AT_AN_INSTANT:,} times without any progress"
                )
            fires[rank] += 1
            self.events += 1
            if self._take(rank, now_ns):
                self.wake(rank, self._resources[rank].fire(now_ns))
