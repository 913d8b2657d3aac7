"""Users give up on a request that takes longer than its timeout, and may try again."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import TYPE_CHECKING, ClassVar, Protocol

from hermes_flow.errors import InternalError
from hermes_flow.program.admission import RetryRule
from hermes_flow.program.same_bits import whole_power
from hermes_flow.program.units import NEVER, NS_PER_S, Ints
from hermes_flow.recording.recording import TIMED_OUT
from hermes_flow.workload.streams import stream

if TYPE_CHECKING:
    from hermes_flow.machine.site_front import SiteFront


class GiveUp(Protocol):
    """Takes a request back from whoever serves it."""

    def __call__(self, request: int, now_ns: int, reason: str, status: int) -> None:
        """Let ``request`` end at ``now_ns`` with a status of recording/recording.py."""


class Tries(Protocol):
    """Takes requests back, and begins them anew (new_tries.py)."""

    def take_back(self, request: int, now_ns: int) -> None:
        """Take all tasks of a request back."""

    def has_failed(self, request: int) -> bool:
        """Return whether a request has ended without an answer."""

    def free_ns(self, request: int, now_ns: int) -> int:
        """Return when no client may have work left of it; ``now_ns`` if none has."""

    def begin_anew(self, request: int) -> None:
        """Forget what was done for a request."""


class Patience:
    """A resource that fires as requests time out; one that ends within the same nanosecond has ended in time.

    With a ``rule`` a request on which its user gave up arrives again, with the same timeout, and then fails.

    ``given_up`` counts by request how often its user gave up. With ``sites`` a user is away from the site of a
    request: what is served there comes to an end when the site hears of it, and an answer that comes to its user too
    late has come for nothing. ``gave_up(request, now_ns)`` is then called as a user gives up for good.

    ``on_wake(at_ns)`` is called with the instant at which it fires next.
    """

    fixed: ClassVar[bool] = True

    def __init__(
        self,
        timeout_ns: Ints,
        give_up: GiveUp,
        rule: RetryRule | None,
        tries: Tries | None,
        seed: int,
        sites: SiteFront | None = None,
    ) -> None:
        """``tries`` is given with a ``rule``."""
        self._sites = sites
        self._until_ns: dict[int, int] = {}  # with sites: request → when its user gives up
        self._told: list[
            tuple[int, int]
        ] = []  # heap of (instant, request) at which sites hear that users gave up
        self._timeout_ns: list[int] = timeout_ns.tolist()
        self._give_up = give_up
        self._deadlines: list[tuple[int, int]] = []  # heap of (instant, request)
        self._over = bytearray(len(timeout_ns))
        self._rule, self._tries = rule, tries
        self.given_up: dict[int, int] = {}
        self._coming: list[tuple[int, int]] = []  # heap of (instant, request) of users that try again
        self._jitter: list[float] = []
        if rule is not None and rule.jitter:
            self._jitter = (
                stream(seed, "user retries").uniform(-1.0, 1.0, len(timeout_ns) * rule.times).tolist()
            )
        self._arrive: Callable[[int, int], None] = lambda request, now_ns: None
        self.gave_up: Callable[[int, int], None] = lambda request, now_ns: None
        self.left: Callable[[int, int], None] = lambda request, now_ns: None  # as a user gives up for now
        self.on_wake: Callable[[int], None] = lambda at_ns: None

    def arriving(self, arrive: Callable[[int, int], None]) -> Callable[[int, int], None]:
        """Return what lets a request arrive, ``(request, now_ns)``, and waits for its answer from then on."""

        def arrived(request: int, now_ns: int) -> None:
            timeout_ns = self._timeout_ns[request]
            if timeout_ns >= 0:
                heappush(self._deadlines, (now_ns + timeout_ns, request))
                self.on_wake(self._deadlines[0][0])
                if self._sites is not None:
                    self._until_ns[request] = now_ns + timeout_ns
                    self._sites.given_up.discard(request)
            arrive(request, now_ns)

        self._arrive = arrived
        return arrived

    def finished(self, request: int) -> None:
        """Note that a request has its answer."""
        self._over[request] = 1

    def in_time(self, request: int, user_ns: int) -> bool:
        """Return whether the user of a request still waits at ``user_ns``, as the answer comes from its site."""
        return user_ns <= self._until_ns.get(request, NEVER)

    def next_ns(self) -> int:
        """Return when the next request times out that may not be over."""
        at = self._deadlines[0][0] if self._deadlines else NEVER
        if self._told and self._told[0][0] < at:
            at = self._told[0][0]
        return self._coming[0][0] if self._coming and self._coming[0][0] < at else at

    def fire(self, now_ns: int) -> int:
        """Let users come again that are due, and give up on what has timed out by now."""
        deadlines, coming = self._deadlines, self._coming
        while coming and coming[0][0] <= now_ns:
            self._come_again(heappop(coming)[1], now_ns)
        while deadlines and deadlines[0][0] <= now_ns:
            request = heappop(deadlines)[1]
            if not self._over[request]:
                self._stop_waiting(request, now_ns)
        while deadlines and self._over[deadlines[0][1]]:
            heappop(deadlines)
        while self._told and self._told[0][0] <= now_ns:
            self._end(heappop(self._told)[1], now_ns)
        return self.next_ns()

    def _stop_waiting(self, request: int, now_ns: int) -> None:
        """Let the user of a request give up, and come again later or never."""
        if self._tries is not None and self._tries.has_failed(request):
            return
        self.given_up[request] = self.given_up.get(request, 0) + 1
        if self._sites is None:
            self._end(request, now_ns)
            return
        self._sites.given_up.add(request)
        if self._rule is None or self.given_up[request] > self._rule.times:
            self.gave_up(request, now_ns)
        heappush(self._told, (now_ns + self._sites.cancel_ns(request), request))

    def _end(self, request: int, now_ns: int) -> None:
        """Let the work for a request end on which its user gave up, and the request if that was for good."""
        rule, tries = self._rule, self._tries
        if tries is not None and tries.has_failed(request):
            return
        times = self.given_up[request]
        if rule is None or tries is None or times > rule.times:
            seconds = self._timeout_ns[request] / NS_PER_S
            again = f", {times} times" if times > 1 else ""
            self._give_up(request, now_ns, f"its user gave up after {seconds:g} s{again}", TIMED_OUT)
            return
        tries.take_back(request, now_ns)
        self.left(request, now_ns)
        wait = rule.backoff_ns * whole_power(rule.factor, times - 1)
        if self._jitter:
            wait *= 1.0 + rule.jitter * self._jitter[request * rule.times + times - 1]
        at_ns = self._until_ns.get(request, now_ns) + max(1, round(wait))
        heappush(self._coming, (max(at_ns, now_ns), request))

    def _come_again(self, request: int, now_ns: int) -> None:
        """Let a request arrive again, as soon as no client has work left of its last try."""
        if self._over[request]:
            return
        assert self._tries is not None
        free_ns = self._tries.free_ns(request, now_ns)
        if free_ns >= NEVER:
            raise InternalError(f"a client keeps work of request {request}, which was taken back")
        if free_ns > now_ns:
            heappush(self._coming, (free_ns, request))
            return
        self._tries.begin_anew(request)
        self._arrive(request, now_ns)

    def settle(self, now_ns: int) -> None:
        """Do nothing: nobody gives up between the instants that ``next_ns`` returns."""
