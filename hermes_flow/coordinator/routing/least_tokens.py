"""Join the client with the least known work."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hermes_flow.coordinator.routing.policy import Routable, routing_policies


@routing_policies.register("least_tokens")
class LeastTokens:
    """The client with the fewest tokens known to be still processed; the first of equals.

    These are the prompt tokens not yet computed and one token per decoding sequence: how long an answer will
    become is not known when a request is routed, so true output lengths are not read. On hosts with cores
    the measure is core time instead.
    """

    __slots__ = ("_clients",)

    def __init__(self, clients: Sequence[Routable], rng: np.random.Generator) -> None:
        self._clients = clients

    def choose(self, now_ns: int) -> int:
        """Return the client with the least known work."""
        loads = [client.queued_tokens(now_ns) for client in self._clients]
        return loads.index(min(loads))
