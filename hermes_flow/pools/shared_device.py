"""A device that an engine and side tasks, or the tasks of several pools, use in turns: one piece of work at a time.

A piece of work is a step of the engine or a whole task, and is never interrupted. When a piece ends, tasks that are
ready go first, in the order in which they became ready; then the engine begins its next step.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol, runtime_checkable

from hermes_flow.program.units import PS_PER_NS


@runtime_checkable
class Taker(Protocol):
    """A client whose tasks take turns on a device."""

    def begin(self, task: int, now_ns: int) -> int:
        """Begin a task that the device is free for; return when it ends."""


class SharedDevice:
    """The device; ``free_ps`` is when the piece of work in progress ends."""

    __slots__ = ("_claims", "free_ps")

    def __init__(self) -> None:
        self.free_ps = 0
        self._claims: deque[tuple[Taker, int]] = deque()

    def claim(self, taker: Taker, task: int, now_ns: int) -> None:
        """Queue a task that is ready now; it begins at once where the device is free."""
        self._claims.append((taker, task))
        self.released(now_ns)

    def withdraw(self, taker: Taker, task: int) -> bool:
        """Remove a task from the queue; return whether it waited there."""
        for claim in self._claims:
            if claim[0] is taker and claim[1] == task:
                self._claims.remove(claim)
                return True
        return False

    def released(self, now_ns: int) -> None:
        """Begin the tasks that wait, as far as the device is free now."""
        claims, now_ps = self._claims, now_ns * PS_PER_NS
        while claims and self.free_ps <= now_ps:
            taker, task = claims.popleft()
            self.free_ps = taker.begin(task, now_ns) * PS_PER_NS

    def turn_ps(self, at_ps: int) -> int:
        """Return when an engine may begin a step that it would begin at ``at_ps``; tasks that wait go first."""
        if self.free_ps <= at_ps and self._claims:
            self.released(-(-at_ps // PS_PER_NS))
        return max(self.free_ps, at_ps)

    def hold(self, until_ps: int) -> None:
        """Keep the device for a step until ``until_ps``."""
        self.free_ps = until_ps
