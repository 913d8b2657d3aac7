"""The policy ``least_input_tokens`` chooses the client with the fewest unfinished prompt tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hermes_flow.program.routing import Choose, Need, RoutedPool
from hermes_flow.routing.policy import routing_policies
from hermes_flow.routing.scoring import Scorer, Unmoved, lowest


@routing_policies.register("least_input_tokens")
@dataclass(frozen=True, slots=True)
class LeastInputTokens:
    """Chooses the client with the fewest prompt tokens over all unfinished tasks; the first of equals.

    A prompt counts whole until its answer is out: what a router can count without asking a client.
    """

    oracle: ClassVar[bool] = False
    needs: ClassVar[frozenset[Need]] = frozenset({"prompts"})

    def scorer(self, pool: RoutedPool) -> Scorer:
        """Score by the prompt tokens of unfinished tasks."""
        loads = pool.loads()
        return Unmoved(lambda task, now_ns: [load(now_ns).input_tokens for load in loads])

    def start(self, pool: RoutedPool) -> Choose:
        """Return the choice of the client with the fewest prompt tokens."""
        return lowest(self.scorer(pool).scores)
