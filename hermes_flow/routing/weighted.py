"""The policy ``weighted`` adds up the weighted scores of several policies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from hermes_flow.config.convert import child
from hermes_flow.config.quantities import Weight
from hermes_flow.errors import ConfigError
from hermes_flow.program.routing import Choose, Need, RoutedPool
from hermes_flow.routing.policy import needs_of, routing_policies
from hermes_flow.routing.scoring import ScoringPolicy


@routing_policies.register("weighted")
@dataclass(frozen=True, slots=True)
class Weighted:
    """Chooses the client with the lowest weighted sum of scores; the first of equals.

    ``weights`` maps policies to their weights. Each scores every client, the lower the better (unfinished tasks,
    tokens, blocks of the prompt that it lacks, nanoseconds of transfer); the scores of one policy are divided by the
    largest of them, so that they lie between 0 and 1. As in the endpoint picker of the Kubernetes Gateway API
    Inference Extension, which llm-d uses, where the highest sum wins.
    """

    remembers: ClassVar[bool] = True
    weights: dict[str, Weight]

    def __post_init__(self) -> None:
        if not self.weights:
            raise ConfigError("weights", f"empty; expected weights of {', '.join(_scoring())}")
        for name, weight in self.weights.items():
            key = child("weights", name)
            if not hasattr(routing_policies.find(name, key), "scorer"):
                raise ConfigError(
                    key, f"{name!r} scores no clients; expected one of: {', '.join(_scoring())}"
                )
            if weight == 0:
                raise ConfigError(key, "0 has no effect; expected a number above 0")

    @property
    def oracle(self) -> bool:
        """Whether one of the policies is an oracle."""
        return any(policy.oracle for policy in self._policies())

    @property
    def needs(self) -> frozenset[Need]:
        """The needs of all policies together."""
        return frozenset[Need]().union(*map(needs_of, self._policies()))

    def start(self, pool: RoutedPool) -> Choose:
        """Return the choice of the client with the lowest weighted sum."""
        parts = [
            (weight, policy.scorer(pool))
            for weight, policy in zip(self.weights.values(), self._policies(), strict=True)
        ]

        def choose(task: int, now_ns: int) -> int:
            sums = [0.0] * len(pool.clients)
            for weight, scorer in parts:
                _add(sums, weight, scorer.scores(task, now_ns))
            chosen = sums.index(min(sums))
            for _, scorer in parts:
                scorer.routed(task, chosen)
            return chosen

        return choose

    def _policies(self) -> list[ScoringPolicy]:
        policies = [routing_policies.parse(name, "weights") for name in self.weights]
        return [policy for policy in policies if isinstance(policy, ScoringPolicy)]


def _add(sums: list[float], weight: float, scores: Sequence[float]) -> None:
    largest = max(scores)
    if largest > 0:
        for client, score in enumerate(scores):
            sums[client] += weight * (score / largest)


def _scoring() -> list[str]:
    names = routing_policies.names
    return [name for name in names if hasattr(routing_policies.find(name, "weights"), "scorer")]
