"""The gateway between arrivals and the cluster: it lets requests in, lets them wait, or turns them away."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from typing import ClassVar

from hermes_flow.machine.patience import GiveUp
from hermes_flow.program.admission import AdmissionQueue, Limits
from hermes_flow.program.same_bits import whole_power
from hermes_flow.program.units import NEVER
from hermes_flow.recording.recording import REJECTED
from hermes_flow.workload.streams import stream

_AWAY, _QUEUED, _OUTSIDE, _INSIDE, _OVER = range(5)  # where a request is


class Gateway:
    """A resource that fires as requests that were turned away come again, and as others have waited too long.

    ``start(request, now_ns)`` lets one into the cluster; ``left`` tells that it has left. ``admitted_ns`` is when
    each was let in, −1 if it never was; ``tries`` how often it came. Gateways of several sites share both (``join``),
    and ``send_back(request, wait_ns, now_ns)`` then lets a request that was turned away come again by itself.
    """

    fixed: ClassVar[bool] = True

    def __init__(
        self,
        limits: Limits,
        queue: AdmissionQueue,
        requests: int,
        seed: int,
        start: Callable[[int, int], None],
        give_up: GiveUp,
    ) -> None:
        self._limits = limits
        self._queue = queue
        self._start = start
        self._give_up = give_up
        self._place = bytearray(requests)
        self._outside: deque[tuple[int, int]] = deque()  # (request, try); earlier tries are passed over
        self._inside = 0
        self._letting_in = False
        self._coming: list[tuple[int, int, int]] = []  # heap of (instant, request, tries so far)
        self._jitter: list[float] = []
        if limits.retry is not None and limits.retry.jitter:
            draws = stream(seed, "retries").uniform(-1.0, 1.0, requests * limits.retry.times)
            self._jitter = draws.tolist()
        self._waits_ns: list[int] = []  # how long each waits at most; empty: no limit
        if limits.max_wait is not None:
            self._waits_ns = limits.max_wait.draw(requests, stream(seed, "gateway waits")).tolist()
        self._waiting: list[tuple[int, int, int]] = []  # heap of (instant, request, try) of longest waits
        self._came_ns = [-1] * requests
        self._before: dict[int, int] = {}  # request whose user came again → how often it came until then
        self.admitted_ns = [-1] * requests
        self.tries = [0] * requests
        self.most_queued = 0
        self.on_wake: Callable[[int], None] = lambda at_ns: None
        self.send_back: Callable[[int, int, int], None] | None = None

    def join(self, other: Gateway) -> None:
        """Count requests together with the gateway of another site."""
        self._came_ns, self._before = other._came_ns, other._before
        self.admitted_ns, self.tries = other.admitted_ns, other.tries

    def arrive(self, request: int, now_ns: int) -> None:
        """Let a request in, let it wait, or turn it away."""
        self.tries[request] += 1
        if self._came_ns[request] < 0:
            self._came_ns[request] = now_ns
        limits, queue = self._limits, self._queue
        if limits.max_queued is None or len(queue) < limits.max_queued or self._has_room():
            self._enter(request)
            self._let_in(now_ns)
        elif limits.holds:
            self._place[request] = _OUTSIDE
            self._outside.append((request, self.tries[request]))
        elif limits.sheds_last and len(queue):
            self._enter(request)
            last = queue.last()
            queue.remove(last)
            self._turn_away(last, now_ns)
        else:
            self._turn_away(request, now_ns)
        if self._waits_ns and self._place[request] in (_QUEUED, _OUTSIDE):
            heappush(self._waiting, (now_ns + self._waits_ns[request], request, self.tries[request]))
            self.on_wake(self.next_ns())

    def come_again(self, request: int) -> None:
        """Let the next try of a request, of a user who gave up, count as the first one."""
        self._before[request] = self.tries[request]
        self._came_ns[request] = -1

    def lose(self, request: int, now_ns: int) -> None:
        """Note that a request leaves for another site, as if it had not come here."""
        if self._place[request] == _INSIDE:
            self.tries[request] -= 1
        self.left(request, now_ns)

    def left(self, request: int, now_ns: int) -> None:
        """Note that a request has ended, or that somebody has given up on it; others may be let in."""
        place, self._place[request] = self._place[request], _OVER
        if place == _INSIDE:
            self._inside -= 1
        elif place == _QUEUED:
            self._queue.remove(request)
        if place in (_INSIDE, _QUEUED):
            self._let_in(now_ns)

    def next_ns(self) -> int:
        """Return when the next request comes again, or may have waited too long."""
        at = self._coming[0][0] if self._coming else NEVER
        return self._waiting[0][0] if self._waiting and self._waiting[0][0] < at else at

    def fire(self, now_ns: int) -> int:
        """Let those come again that are due, then turn those away who have waited too long."""
        coming, waiting = self._coming, self._waiting
        while True:
            if coming and coming[0][0] <= now_ns:
                _, request, tried = heappop(coming)
                if tried == self.tries[request] and self._place[request] == _AWAY:
                    self.arrive(request, now_ns)
            elif waiting and waiting[0][0] <= now_ns:
                _, request, tried = heappop(waiting)
                if tried == self.tries[request] and self._place[request] in (_QUEUED, _OUTSIDE):
                    self._stop_waiting(request, now_ns)
            else:
                break
        while waiting and self._place[waiting[0][1]] not in (_QUEUED, _OUTSIDE):
            heappop(waiting)
        return self.next_ns()

    def _stop_waiting(self, request: int, now_ns: int) -> None:
        """Turn a request away that has waited too long; others may take its place in the queue."""
        if self._place[request] == _QUEUED:
            self._queue.remove(request)
        self._place[request] = _AWAY
        self._turn_away(request, now_ns)
        self._let_in(now_ns)

    def settle(self, now_ns: int) -> None:
        """Do nothing: nothing changes between the instants that ``next_ns`` returns."""

    def _has_room(self) -> bool:
        """Return whether a request that comes now is let in at once."""
        most = self._limits.max_in_flight
        return not len(self._queue) and (most is None or self._inside < most)

    def _enter(self, request: int) -> None:
        self._place[request] = _QUEUED
        self._queue.enter(request, self._came_ns[request])

    def _let_in(self, now_ns: int) -> None:
        """Let requests in as far as there is room, and those outside into the queue."""
        if self._letting_in:
            return
        self._letting_in = True
        queue, limits, outside = self._queue, self._limits, self._outside
        while True:
            while outside and (limits.max_queued is None or len(queue) < max(1, limits.max_queued)):
                if not limits.max_queued and not self._has_room():
                    break
                request, tried = outside.popleft()
                if self._place[request] == _OUTSIDE and tried == self.tries[request]:
                    self._enter(request)
            if not len(queue) or (limits.max_in_flight is not None and self._inside >= limits.max_in_flight):
                break
            request = queue.take()
            self._place[request] = _INSIDE
            self._inside += 1
            self.admitted_ns[request] = now_ns
            self._start(request, now_ns)
        self._letting_in = False
        self.most_queued = max(self.most_queued, len(queue))

    def _turn_away(self, request: int, now_ns: int) -> None:
        """Let a request come again later, or reject it."""
        retry, tries = self._limits.retry, self.tries[request] - self._before.get(request, 0)
        if retry is None or tries > retry.times:
            again = f", {tries} times" if tries > 1 else ""
            self._place[request] = _OVER
            self._give_up(request, now_ns, f"turned away by the gateway{again}", REJECTED)
            return
        self._place[request] = _AWAY
        wait = retry.backoff_ns * whole_power(retry.factor, tries - 1)
        if self._jitter:
            wait *= 1.0 + retry.jitter * self._jitter[request * retry.times + tries - 1]
        if self.send_back is not None:
            self.send_back(request, round(wait), now_ns)
            return
        heappush(self._coming, (now_ns + round(wait), request, self.tries[request]))
        self.on_wake(self._coming[0][0])
