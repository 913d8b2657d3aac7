"""Join the shortest queue."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hermes_flow.coordinator.routing.policy import Routable, routing_policies


@routing_policies.register("least_requests")
class LeastRequests:
    """The client with the fewest unfinished tasks, waiting or running; the first of equals."""

    __slots__ = ("_clients",)

    def __init__(self, clients: Sequence[Routable], rng: np.random.Generator) -> None:
        self._clients = clients

    def choose(self, now_ns: int) -> int:
        """Return the client with the fewest unfinished tasks."""
        loads = [client.outstanding(now_ns) for client in self._clients]
        return loads.index(min(loads))
