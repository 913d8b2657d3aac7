"""Sources of arriving requests: at given times, in a closed loop, turn by turn in sessions, or known ahead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heappop, heappush

import numpy as np

from hermes_flow.pools.client import PoolClient
from hermes_flow.program.units import NEVER, Ints

# So many requests reach their clients at once where all that comes before is known.
KNOWN_AT_ONCE = 4096


class OpenArrivals:
    """Requests that arrive at the times of the workload, independently of the system."""

    __slots__ = ("_arrive", "_at", "_next", "_skipped")

    def __init__(self, arrival_ns: list[int], skipped: set[int], arrive: Callable[[int, int], None]) -> None:
        self._at = [*arrival_ns, NEVER]
        self._next = 0
        self._skipped = skipped
        self._arrive = arrive

    def next_ns(self) -> int:
        """Return the instant of the next arrival, or NEVER."""
        return self._at[self._next]

    def fire(self, now_ns: int) -> None:
        """Let the next request arrive; a request that no client can serve is rejected."""
        request = self._next
        self._next = request + 1
        if request not in self._skipped:
            self._arrive(request, now_ns)


class ClosedArrivals:
    """At most ``concurrency`` requests in the system; the next arrives a think time after one finishes."""

    __slots__ = ("_arrive", "_due", "_next", "_skipped", "_think_ns", "arrival_ns")

    def __init__(
        self, concurrency: int, think_ns: list[int], skipped: set[int], arrive: Callable[[int, int], None]
    ) -> None:
        self._arrive = arrive
        self._think_ns = think_ns
        self._skipped = skipped
        self._next = min(concurrency, len(think_ns))
        self._due: list[tuple[int, int]] = [(0, request) for request in range(self._next)]
        self.arrival_ns = [-1] * len(think_ns)

    def next_ns(self) -> int:
        """Return the instant of the next arrival, or NEVER."""
        return self._due[0][0] if self._due else NEVER

    def fire(self, now_ns: int) -> None:
        """Let the next request arrive; a request that no client can serve is replaced by the next one."""
        request = heappop(self._due)[1]
        self.arrival_ns[request] = now_ns
        if request in self._skipped:
            self.finished(request, now_ns)
        else:
            self._arrive(request, now_ns)

    def finished(self, request: int, now_ns: int) -> None:
        """Schedule the request that replaces a finished one."""
        if self._next < len(self._think_ns):
            heappush(self._due, (now_ns + self._think_ns[self._next], self._next))
            self._next += 1

    def failed(self, request: int, now_ns: int) -> list[int]:
        """Schedule the request that replaces a failed one; no other request fails with it."""
        self.finished(request, now_ns)
        return []


class SessionArrivals:
    """Sessions begin when the workload says; each next turn arrives a think time after the answer before it."""

    __slots__ = ("_arrive", "_due", "_following", "_skipped", "_think_ns", "arrival_ns")

    def __init__(
        self,
        first_ns: list[int],
        previous: list[int],
        think_ns: list[int],
        skipped: set[int],
        arrive: Callable[[int, int], None],
    ) -> None:
        """``previous`` is the turn before each request, -1 for the first, which arrives at ``first_ns``."""
        self._arrive = arrive
        self._think_ns = think_ns
        self._skipped = skipped
        self._following = [-1] * len(previous)
        for request, before in enumerate(previous):
            if before >= 0:
                self._following[before] = request
        # In order of time, and so a heap already.
        self._due = [(first_ns[request], request) for request, before in enumerate(previous) if before < 0]
        self.arrival_ns = [-1] * len(previous)

    def next_ns(self) -> int:
        """Return the instant of the next arrival, or NEVER."""
        return self._due[0][0] if self._due else NEVER

    def fire(self, now_ns: int) -> None:
        """Let the next request arrive; a request that no client can serve ends its session with all later turns."""
        request = heappop(self._due)[1]
        self.arrival_ns[request] = now_ns
        if request not in self._skipped:
            self._arrive(request, now_ns)
            return
        while (request := self._following[request]) >= 0:
            self.arrival_ns[request] = now_ns

    def finished(self, request: int, now_ns: int) -> None:
        """Schedule the turn after a finished one."""
        following = self._following[request]
        if following >= 0:
            heappush(self._due, (now_ns + self._think_ns[following], following))

    def failed(self, request: int, now_ns: int) -> list[int]:
        """End the session of a failed request; return its later turns, which fail with it."""
        later = []
        while (request := self._following[request]) >= 0:
            self.arrival_ns[request] = now_ns
            later.append(request)
        return later


class AheadArrivals:
    """Requests in the order in which stages that were computed ahead hand them on, not that of their arrival."""

    __slots__ = ("_at", "_next", "_order", "_start")

    def __init__(self, at_ns: list[int], order: list[int], start: Callable[[int, int], None]) -> None:
        self._at = [*at_ns, NEVER]
        self._order = order
        self._next = 0
        self._start = start

    def next_ns(self) -> int:
        """Return the instant at which the next request is handed on, or NEVER."""
        return self._at[self._next]

    def fire(self, now_ns: int) -> None:
        """Hand the next request on."""
        place = self._next
        self._next = place + 1
        self._start(self._order[place], now_ns)


class KnownArrivals:
    """Tasks whose instants and clients are known: each client is told of many ahead of their instants.

    It stands for an event a task; ``count`` is told how many more there are than those that it takes. ``wake`` is
    called with the place of each client that somebody waits for, after it is told.
    """

    __slots__ = ("_at", "_chosen", "_clients", "_count", "_next", "_next_ns", "_tasks", "_wake")

    def __init__(
        self,
        at_ns: Ints,
        tasks: Ints,
        chosen: Ints,
        clients: Sequence[PoolClient],
        count: Callable[[int], None],
        wake: Callable[[int], None] | None = None,
    ) -> None:
        """``chosen`` has the client of each of ``tasks``, which become ready at ``at_ns``, in order of time."""
        self._at = at_ns
        self._tasks = tasks
        self._chosen = chosen
        self._clients = clients
        self._count = count
        self._wake = wake
        self._next = 0
        self._next_ns = int(at_ns[0]) if len(at_ns) else NEVER

    def next_ns(self) -> int:
        """Return the instant of the first task that no client knows, or NEVER."""
        return self._next_ns

    def fire(self, now_ns: int) -> None:
        """Tell the clients of the next tasks."""
        first = self._next
        self._next = last = min(first + KNOWN_AT_ONCE, len(self._at))
        self._next_ns = int(self._at[last]) if last < len(self._at) else NEVER
        chosen = self._chosen[first:last]
        places = np.argsort(chosen, kind="stable")
        ends = np.cumsum(np.bincount(chosen, minlength=len(self._clients)))
        begin = 0
        for place, (client, end) in enumerate(zip(self._clients, ends.tolist(), strict=True)):
            if end > begin:
                own = first + places[begin:end]
                client.submit_known(self._tasks[own].tolist(), self._at[own].tolist())
                if self._wake is not None:
                    self._wake(place)
            begin = end
        self._count(last - first - 1)
