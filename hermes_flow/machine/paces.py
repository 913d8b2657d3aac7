"""Keeps how fast the clients of one pool are; some take longer for each step in given times (stragglers)."""

from __future__ import annotations

from collections.abc import Sequence

from hermes_flow.program.fleet import Pace
from hermes_flow.program.units import NEVER


class Paces:
    """The changes of pace to come. ``factor`` has how many times as long the steps of each client take now."""

    def __init__(self, paces: Sequence[Pace], clients: int) -> None:
        self._coming = list(paces)[::-1]  # the next one last
        self.factor = [1.0] * clients

    def next_ns(self) -> int:
        """Return when the pace of a client changes next."""
        return self._coming[-1].at_ns if self._coming else NEVER

    def due(self, now_ns: int) -> list[int]:
        """Make the changes that are due by now, and return the clients that have another pace."""
        changed: list[int] = []
        while self._coming and self._coming[-1].at_ns <= now_ns:
            pace = self._coming.pop()
            self.factor[pace.client] = pace.factor
            changed.append(pace.client)
        return changed
