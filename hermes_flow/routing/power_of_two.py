"""The policy ``power_of_two`` draws two clients and chooses the less loaded one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from hermes_flow.program.routing import Choose, RoutedPool
from hermes_flow.routing.policy import routing_policies

_DRAWS = 4096


@routing_policies.register("power_of_two")
@dataclass(frozen=True, slots=True)
class PowerOfTwo:
    """Draws two clients and chooses the one with fewer unfinished tasks; the first drawn of equals.

    Mitzenmacher 2001, The Power of Two Choices in Randomized Load Balancing (IEEE TPDS 12:10): nearly as even as
    asking all clients, and asks two.
    """

    oracle: ClassVar[bool] = False

    def start(self, pool: RoutedPool) -> Choose:
        """Return the choice of the less loaded of two."""
        counts = [client.outstanding for client in pool.clients]
        pairs = _pairs(pool)

        def choose(task: int, now_ns: int) -> int:
            first, second = next(pairs)
            return first if counts[first](now_ns) <= counts[second](now_ns) else second

        return choose


def _pairs(pool: RoutedPool) -> Iterator[tuple[int, int]]:
    count = len(pool.clients)
    while True:
        first = pool.rng.integers(0, count, size=_DRAWS)
        second = (first + pool.rng.integers(1, count, size=_DRAWS)) % count
        yield from zip(first.tolist(), second.tolist(), strict=True)
