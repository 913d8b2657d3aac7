"""A client at random."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hermes_flow.coordinator.routing.policy import Routable, routing_policies

_DRAWS = 4096


@routing_policies.register("random")
class Random:
    """Every client with equal probability, from the pool's own stream."""

    __slots__ = ("_count", "_drawn", "_rng")

    def __init__(self, clients: Sequence[Routable], rng: np.random.Generator) -> None:
        self._count = len(clients)
        self._rng = rng
        self._drawn: list[int] = []

    def choose(self, now_ns: int) -> int:
        """Return a client drawn uniformly."""
        if not self._drawn:
            self._drawn = self._rng.integers(0, self._count, size=_DRAWS).tolist()
        return self._drawn.pop()
