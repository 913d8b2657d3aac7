"""Clients in turn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hermes_flow.coordinator.routing.policy import Routable, routing_policies


@routing_policies.register("round_robin")
class RoundRobin:
    """The first task goes to client 0, the next to client 1, and so on around."""

    __slots__ = ("_count", "_next")

    def __init__(self, clients: Sequence[Routable], rng: np.random.Generator) -> None:
        self._count = len(clients)
        self._next = -1

    def choose(self, now_ns: int) -> int:
        """Return the client after the one chosen last."""
        self._next += 1
        if self._next == self._count:
            self._next = 0
        return self._next
