"""The policy ``least_work_left`` chooses the client with the least true work; it is an oracle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hermes_flow.program.routing import Choose, Need, RoutedPool
from hermes_flow.routing.policy import routing_policies
from hermes_flow.routing.scoring import Scorer, Unmoved, lowest


@routing_policies.register("least_work_left")
@dataclass(frozen=True, slots=True)
class LeastWorkLeft:
    """Chooses the client with the fewest tokens left, of prompts and answers; the first of equals.

    These are the prompt tokens not yet scheduled and the answer tokens not yet delivered. No router knows
    the latter: this is the bound for what ``least_expected_work`` guesses.
    """

    oracle: ClassVar[bool] = True
    needs: ClassVar[frozenset[Need]] = frozenset({"prompts"})

    def scorer(self, pool: RoutedPool) -> Scorer:
        """Score by tokens left."""
        loads = pool.loads()
        return Unmoved(lambda task, now_ns: [load(now_ns).work_left_tokens for load in loads])

    def start(self, pool: RoutedPool) -> Choose:
        """Return the choice of the client with the least work left."""
        return lowest(self.scorer(pool).scores)
