"""The policy ``least_tokens`` chooses the client with the least known work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hermes_flow.program.routing import Choose, RoutedPool
from hermes_flow.routing.policy import routing_policies
from hermes_flow.routing.scoring import Scorer, Unmoved, lowest


@routing_policies.register("least_tokens")
@dataclass(frozen=True, slots=True)
class LeastTokens:
    """Chooses the client with the fewest known tokens left; the first of equals.

    These are the prompt tokens not yet computed and one token per decoding sequence: how long an answer will
    become is not known when a request is routed, so true output lengths are not read. On hosts with cores
    the measure is core time instead.
    """

    oracle: ClassVar[bool] = False

    def scorer(self, pool: RoutedPool) -> Scorer:
        """Score by known work."""
        works = [client.queued_tokens for client in pool.clients]
        return Unmoved(lambda task, now_ns: [work(now_ns) for work in works])

    def start(self, pool: RoutedPool) -> Choose:
        """Return the choice of the client with the least known work."""
        return lowest(self.scorer(pool).scores)
