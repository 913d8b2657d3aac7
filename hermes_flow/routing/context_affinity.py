"""The policy ``context_affinity`` chooses the client whose store has the context of the request."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from hermes_flow.config.quantities import FactorFromOne, Tokens
from hermes_flow.program.routing import Choose, Need, RoutedPool
from hermes_flow.routing.policy import routing_policies
from hermes_flow.routing.scoring import Scorer, Unmoved


@routing_policies.register("context_affinity")
@dataclass(frozen=True, slots=True)
class ContextAffinity:
    """Chooses the client whose store would read the request's context soonest; the least loaded of equals.

    The router knows what each store holds, as with an index of KV events (vLLM's KV events, LMCache's controller).
    It does not know which reads are under way. Load is the number of unfinished tasks. Where the most loaded client
    has more than ``imbalance_requests`` above the least loaded one and more than ``imbalance_ratio`` times as many,
    the least loaded client is chosen; so it is where no store has the context.
    """

    oracle: ClassVar[bool] = False
    needs: ClassVar[frozenset[Need]] = frozenset({"contexts"})
    imbalance_requests: Tokens = 64
    imbalance_ratio: FactorFromOne = 1.5

    def scorer(self, pool: RoutedPool) -> Scorer:
        """Score by the nanoseconds that a client's store would read, regardless of loads.

        One that does not have the context scores twice the slowest that has it.
        """
        places = range(len(pool.clients))

        def scores(task: int, now_ns: int) -> Sequence[float]:
            times = [pool.context_ns(task, place) for place in places]
            longest = max((time for time in times if time is not None), default=0)
            return [2 * longest if time is None else time for time in times]

        return Unmoved(scores)

    def start(self, pool: RoutedPool) -> Choose:
        """Return the choice of the client whose store has the context."""
        counts = [client.outstanding for client in pool.clients]

        def choose(task: int, now_ns: int) -> int:
            loads = [count(now_ns) for count in counts]
            least, most = min(loads), max(loads)
            if most - least > self.imbalance_requests and most > self.imbalance_ratio * least:
                return loads.index(least)
            times = [pool.context_ns(task, place) for place in range(len(loads))]
            keys = [
                (math.inf if time is None else time, load) for time, load in zip(times, loads, strict=True)
            ]
            return keys.index(min(keys))

        return choose
