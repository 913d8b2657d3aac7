"""The policy ``least_kv`` chooses the client with the least KV in use and promised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hermes_flow.program.routing import Choose, Need, RoutedPool
from hermes_flow.routing.policy import routing_policies
from hermes_flow.routing.scoring import Scorer, Unmoved, lowest


@routing_policies.register("least_kv")
@dataclass(frozen=True, slots=True)
class LeastKV:
    """Chooses the client with the fewest tokens of KV, held or promised to waiting prompts; the first of equals.

    Every unfinished task counts its prompt from the moment it is routed, and its answer as far as it is out.
    Prefixes that sequences share in a cache count for each of them.
    """

    oracle: ClassVar[bool] = False
    needs: ClassVar[frozenset[Need]] = frozenset({"prompts"})

    def scorer(self, pool: RoutedPool) -> Scorer:
        """Score by tokens of KV, held and promised."""
        loads = pool.loads()
        return Unmoved(lambda task, now_ns: [load(now_ns).kv_tokens for load in loads])

    def start(self, pool: RoutedPool) -> Choose:
        """Return the choice of the client with the least KV."""
        return lowest(self.scorer(pool).scores)
