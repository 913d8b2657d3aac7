"""The policy ``random`` draws a client."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from hermes_flow.program.routing import Choose, RoutedPool
from hermes_flow.routing.policy import routing_policies

_DRAWS = 4096


@routing_policies.register("random")
@dataclass(frozen=True, slots=True)
class Random:
    """Chooses every client with equal probability, from the pool's own stream."""

    oracle: ClassVar[bool] = False
    ignores_loads: ClassVar[bool] = True

    def start(self, pool: RoutedPool) -> Choose:
        """Return the choice of a client drawn uniformly."""
        drawn = _draws(pool)
        return lambda task, now_ns: next(drawn)


def _draws(pool: RoutedPool) -> Iterator[int]:
    while True:
        yield from reversed(pool.rng.integers(0, len(pool.clients), size=_DRAWS).tolist())
