"""The policy ``round_robin`` chooses clients in turn."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle
from typing import ClassVar

from hermes_flow.program.routing import Choose, RoutedPool
from hermes_flow.routing.policy import routing_policies


@routing_policies.register("round_robin")
@dataclass(frozen=True, slots=True)
class RoundRobin:
    """Sends the first task to client 0, the next to client 1, and so on in turn."""

    oracle: ClassVar[bool] = False

    def start(self, pool: RoutedPool) -> Choose:
        """Return the choice of the client after the one chosen last."""
        turn = cycle(range(len(pool.clients)))
        return lambda task, now_ns: next(turn)
