"""The policy ``nearest`` chooses the client to which KV moves fastest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hermes_flow.program.routing import Choose, RoutedPool
from hermes_flow.routing.policy import routing_policies
from hermes_flow.routing.scoring import Scorer, Unmoved


@routing_policies.register("nearest")
@dataclass(frozen=True, slots=True)
class Nearest:
    """Chooses the client to which the task's KV would move fastest over idle links; the least loaded of equals.

    Bytes times distance: the same rack before another one, a wide link before a narrow one. Load is the number of
    unfinished tasks. Where no KV has to move all clients are equally near.
    """

    oracle: ClassVar[bool] = False

    def scorer(self, pool: RoutedPool) -> Scorer:
        """Score by nanoseconds of transfer."""
        clients = range(len(pool.clients))
        return Unmoved(lambda task, now_ns: [pool.transfer_ns(task, client) for client in clients])

    def start(self, pool: RoutedPool) -> Choose:
        """Return the choice of the nearest client."""
        scores = self.scorer(pool).scores
        counts = [client.outstanding for client in pool.clients]

        def choose(task: int, now_ns: int) -> int:
            keys = [(ns, count(now_ns)) for ns, count in zip(scores(task, now_ns), counts, strict=True)]
            return keys.index(min(keys))

        return choose
