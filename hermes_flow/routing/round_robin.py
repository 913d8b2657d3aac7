"""The policy ``round_robin`` chooses clients in turn."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import cycle
from typing import ClassVar

from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.program.routing import Choose, RoutedPool
from hermes_flow.routing.policy import routing_policies


@routing_policies.register("round_robin")
@dataclass(frozen=True, slots=True)
class RoundRobin:
    """Sends the first task to client 0, the next to client 1, and so on in turn."""

    oracle: ClassVar[bool] = False
    remembers: ClassVar[bool] = True
    ignores_loads: ClassVar[bool] = True

    def start(self, pool: RoutedPool) -> Choose:
        """Return the choice of the client after the one chosen last."""
        if pool.numbers is not None:
            return _among(pool, pool.numbers)
        turn = cycle(range(len(pool.clients)))
        return lambda task, now_ns: next(turn)


def _among(pool: RoutedPool, numbers: Sequence[int]) -> Choose:
    """Return the choice in turn among clients that come and go: the next one after the client chosen last."""
    last: list[int] = pool.remembered("round_robin", lambda: [-1])
    begin = bisect_right(numbers, last[0]) % len(numbers)
    turn = cycle([*range(begin, len(numbers)), *range(begin)])

    def choose(task: int, now_ns: int) -> int:
        client: int = next(turn)
        last[0] = numbers[client]
        return client

    return choose
