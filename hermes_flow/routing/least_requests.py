"""The policy ``least_requests`` chooses the client with the fewest unfinished tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hermes_flow.program.routing import Choose, RoutedPool
from hermes_flow.routing.policy import routing_policies
from hermes_flow.routing.scoring import Scorer, Unmoved, lowest


@routing_policies.register("least_requests")
@dataclass(frozen=True, slots=True)
class LeastRequests:
    """Chooses the client with the fewest unfinished tasks, waiting or running; the first of equals."""

    oracle: ClassVar[bool] = False
    counts: ClassVar[bool] = True

    def scorer(self, pool: RoutedPool) -> Scorer:
        """Score by unfinished tasks."""
        counts = [client.outstanding for client in pool.clients]
        return Unmoved(lambda task, now_ns: [count(now_ns) for count in counts])

    def start(self, pool: RoutedPool) -> Choose:
        """Return the choice of the client with the fewest unfinished tasks."""
        unfinished = pool.unfinished
        if unfinished is not None:
            return lambda task, now_ns: unfinished.least(now_ns)
        return lowest(self.scorer(pool).scores)
