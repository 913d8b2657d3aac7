"""Users give up on a request that takes longer than its timeout."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import ClassVar, Protocol

from hermes_flow.program.units import NEVER, NS_PER_S, Ints
from hermes_flow.recording.recording import TIMED_OUT


class GiveUp(Protocol):
    """Takes a request back from whoever serves it."""

    def __call__(self, request: int, now_ns: int, reason: str, status: int) -> None:
        """Let ``request`` end at ``now_ns`` with a status of recording/recording.py."""


class Patience:
    """A resource that fires as requests time out; one that ends within the same nanosecond has ended in time.

    ``on_wake(at_ns)`` is called with the instant at which it fires next.
    """

    fixed: ClassVar[bool] = True

    def __init__(self, timeout_ns: Ints, give_up: GiveUp) -> None:
        self._timeout_ns: list[int] = timeout_ns.tolist()
        self._give_up = give_up
        self._deadlines: list[tuple[int, int]] = []  # heap of (instant, request)
        self._over = bytearray(len(timeout_ns))
        self.on_wake: Callable[[int], None] = lambda at_ns: None

    def arriving(self, arrive: Callable[[int, int], None]) -> Callable[[int, int], None]:
        """Return what lets a request arrive, ``(request, now_ns)``, and waits for its answer from then on."""

        def arrived(request: int, now_ns: int) -> None:
            timeout_ns = self._timeout_ns[request]
            if timeout_ns >= 0:
                heappush(self._deadlines, (now_ns + timeout_ns, request))
                self.on_wake(self._deadlines[0][0])
            arrive(request, now_ns)

        return arrived

    def finished(self, request: int) -> None:
        """Note that a request has its answer."""
        self._over[request] = 1

    def next_ns(self) -> int:
        """Return when the next request times out that may not be over."""
        return self._deadlines[0][0] if self._deadlines else NEVER

    def fire(self, now_ns: int) -> int:
        """Give up on what has timed out by now."""
        deadlines = self._deadlines
        while deadlines and deadlines[0][0] <= now_ns:
            request = heappop(deadlines)[1]
            if not self._over[request]:
                seconds = self._timeout_ns[request] / NS_PER_S
                self._give_up(request, now_ns, f"its user gave up after {seconds:g} s", TIMED_OUT)
        while deadlines and self._over[deadlines[0][1]]:
            heappop(deadlines)
        return self.next_ns()

    def settle(self, now_ns: int) -> None:
        """Do nothing: nobody gives up between the instants that ``next_ns`` returns."""
