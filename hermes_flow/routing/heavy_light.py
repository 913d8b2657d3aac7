"""The policy ``heavy_light`` sends long prompts to clients of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hermes_flow.config.convert import child
from hermes_flow.config.quantities import ClientsOrShare, PositiveTokens
from hermes_flow.errors import ConfigError
from hermes_flow.program.routing import Choose, Need, PartingPolicy, RoutedPool, RoutingPolicy
from hermes_flow.routing.policy import needs_of, routing_policies, start


@routing_policies.register("heavy_light")
@dataclass(frozen=True, slots=True)
class HeavyLight:
    """Sends prompts longer than ``threshold_tokens`` to the first ``heavy_clients`` of the pool, others to the rest.

    ``heavy_clients`` is a share of the pool below 1, or a number of clients from 1; each part has at least one.
    Within a part the policy ``within`` chooses. Where clients come and go, those that are up are divided anew.
    """

    threshold_tokens: PositiveTokens
    heavy_clients: ClientsOrShare = 0.5
    within: dict[str, Any] | str = "least_requests"

    def __post_init__(self) -> None:
        if self.heavy_clients > 1 and not self.heavy_clients.is_integer():
            raise ConfigError(
                "heavy_clients",
                f"{self.heavy_clients:g} is neither a share of the pool, between 0 and 1, nor a number of clients",
            )
        self._policy()

    @property
    def oracle(self) -> bool:
        """Whether the policy ``within`` is an oracle."""
        return self._policy().oracle

    @property
    def needs(self) -> frozenset[Need]:
        """The needs of this policy (prompts) and of ``within``."""
        return needs_of(self._policy()) | {"prompts"}

    def check_parts(self, clients: int) -> None:
        """Raise ConfigError where a number of heavy clients leaves none for the others."""
        if self.heavy_clients >= clients:
            raise ConfigError(
                "heavy_clients",
                f"{self.heavy_clients:g} leaves none of {clients} clients for short prompts; "
                f"expected at most {clients - 1}",
            )
        policy = self._policy()
        heavy = self._heavy(clients)
        for part in (heavy, clients - heavy):
            if part > 1 and isinstance(policy, PartingPolicy):
                try:
                    policy.check_parts(part)
                except ConfigError as error:
                    raise ConfigError(child("within", error.key), error.problem) from None

    def start(self, pool: RoutedPool) -> Choose:
        """Return the choice within the part for the task's prompt."""
        clients = len(pool.clients)
        heavy = self._heavy(clients)
        streams = pool.rng.spawn(2)
        long = start(self._policy(), pool.part(0, heavy, streams[0]))
        short = start(self._policy(), pool.part(heavy, clients - heavy, streams[1]))
        input_tokens, threshold = pool.facts.input_tokens, self.threshold_tokens

        def choose(task: int, now_ns: int) -> int:
            if input_tokens(task) > threshold:
                return long(task, now_ns)
            return heavy + short(task, now_ns)

        return choose

    def _heavy(self, clients: int) -> int:
        share = self.heavy_clients
        return min(max(1, round(share * clients if share < 1 else share)), clients - 1)

    def _policy(self) -> RoutingPolicy:
        return routing_policies.parse(self.within, "within")
