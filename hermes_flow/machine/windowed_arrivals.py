"""Given arrivals that come window by window, for runs that hold only a few windows of requests."""

from __future__ import annotations

from collections.abc import Callable

from hermes_flow.program.units import NEVER


class WindowedArrivals:
    """The arrivals of one window after the other, each with the number of its slot.

    ``opened(now_ns)`` is called before the first request of a window arrives, and ``closed()`` before the last one
    does: it may ``load`` the next window.
    """

    def __init__(self, arrive: Callable[[int, int], None]) -> None:
        self.opened: Callable[[int], None] = lambda now_ns: None
        self.closed: Callable[[], None] = lambda: None
        self._arrive = arrive
        self._at = [NEVER]
        self._next = 0
        self._first = 0
        self._skipped: set[int] = set()

    def load(self, arrival_ns: list[int], first: int, skipped: set[int]) -> None:
        """Let a window arrive next, whose requests have the slots from ``first`` on; ``skipped`` of them never do."""
        self._at = [*arrival_ns, NEVER]
        self._next, self._first, self._skipped = 0, first, skipped

    def next_ns(self) -> int:
        """Return the instant of the next arrival, or NEVER."""
        return self._at[self._next]

    def fire(self, now_ns: int) -> None:
        """Let the next request arrive; a request that no client can serve is rejected."""
        place, first, skipped = self._next, self._first, self._skipped
        if not place:
            self.opened(now_ns)
        self._next = place + 1
        if self._at[place + 1] >= NEVER:
            self.closed()
        if place not in skipped:
            self._arrive(first + place, now_ns)
