"""The policy ``least_expected_work`` chooses the client with the least expected work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from hermes_flow.program.routing import Choose, Need, RoutedPool
from hermes_flow.routing.policy import routing_policies
from hermes_flow.routing.scoring import Scorer, Unmoved, lowest


@routing_policies.register("least_expected_work")
@dataclass(frozen=True, slots=True)
class LeastExpectedWork:
    """Chooses the client with the fewest expected tokens left, of prompts and answers; the first of equals.

    What is left of an unfinished answer is expected to be the mean length of the answers that the pool has finished
    so far, whatever was delivered of it: of lengths without memory that is exact, and with long tails an answer
    that has run for long is not about to end. Until one has finished, a token each.
    """

    oracle: ClassVar[bool] = False
    needs: ClassVar[frozenset[Need]] = frozenset({"prompts"})

    def scorer(self, pool: RoutedPool) -> Scorer:
        """Score by expected tokens, times the number of finished answers: all in whole numbers."""
        reads = pool.loads()

        def scores(task: int, now_ns: int) -> Sequence[int]:
            loads = [read(now_ns) for read in reads]
            finished = sum([load.finished for load in loads])
            tokens = sum([load.finished_tokens for load in loads])
            if not finished:
                finished = tokens = 1
            return [load.backlog_tokens * finished + load.unfinished * tokens for load in loads]

        return Unmoved(scores)

    def start(self, pool: RoutedPool) -> Choose:
        """Return the choice of the client with the least expected work."""
        return lowest(self.scorer(pool).scores)
