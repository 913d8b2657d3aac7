"""Join the shortest queue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hermes_flow.coordinator.routing.policy import Choose, RoutedPool, routing_policies


@routing_policies.register("least_requests")
@dataclass(frozen=True, slots=True)
class LeastRequests:
    """The client with the fewest unfinished tasks, waiting or running; the first of equals."""

    oracle: ClassVar[bool] = False

    def start(self, pool: RoutedPool) -> Choose:
        """Return the choice of the client with the fewest unfinished tasks."""
        clients = pool.clients

        def choose(task: int, now_ns: int) -> int:
            loads = [client.outstanding(now_ns) for client in clients]
            return loads.index(min(loads))

        return choose
