"""The policy ``weighted_fair`` shares the cluster among tenants in proportion to their weights.

It is self-clocked fair queueing (Golestani, IEEE INFOCOM 1994): a request of cost c gets the tag
max(v, tag of its tenant's request before it) + c / weight, where v is the tag of the request let in last, and the
lowest tag goes first. While two tenants both have requests waiting, what is let in of each, divided by its weight,
differs by at most one largest request of either, divided by its weight.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from hermes_flow.admission.gate import Gate
from hermes_flow.admission.registry import admission_policies
from hermes_flow.config.quantities import Factor
from hermes_flow.errors import ConfigError, did_you_mean
from hermes_flow.program.requests import Requests
from hermes_flow.program.sorted_requests import SortedRequests


@admission_policies.register("weighted_fair")
@dataclass(frozen=True, slots=True)
class WeightedFair(Gate):
    """Lets in what is fair to the tenants of workload.classes, or of the trace's column ``tenant``."""

    weights: dict[str, Factor] = field(default_factory=dict)
    """The weight of each tenant; 1 for one that has none."""
    cost: Literal["input_tokens", "requests"] = "input_tokens"
    """What is shared: the tokens of prompts, which a gateway knows, or the number of requests."""

    def start(self, requests: Requests) -> FairQueue:
        """Return an empty queue."""
        if requests.tenant is None:
            raise ConfigError(
                "policy", "weighted_fair needs tenants; give workload.classes some, or the trace a column"
            )
        for name in self.weights:
            if name not in requests.tenants:
                raise ConfigError(
                    f"weights.{name}", f"there is no such tenant{did_you_mean(name, requests.tenants)}"
                )
        weights = [float(self.weights.get(name, 1.0)) for name in requests.tenants]
        costs = [1] * len(requests) if self.cost == "requests" else requests.input_tokens.tolist()
        return FairQueue(requests.tenant.tolist(), weights, costs)


class FairQueue:
    """The queue of a ``weighted_fair``; requests of no tenant (-1) are one of weight 1."""

    __slots__ = ("_costs", "_now", "_tags", "_tenant", "_waiting", "_weights")

    def __init__(self, tenant: list[int], weights: list[float], costs: list[int]) -> None:
        self._tenant = tenant
        self._weights = [*weights, 1.0]
        self._costs = costs
        self._tags = [0.0] * len(self._weights)  # of the last request of each tenant
        self._now = 0.0  # the tag of the request that was let in last
        self._waiting = SortedRequests()

    def __len__(self) -> int:
        return len(self._waiting)

    def enter(self, request: int, came_ns: int) -> None:
        """Add a request."""
        tenant = self._tenant[request]
        tag = max(self._now, self._tags[tenant]) + self._costs[request] / self._weights[tenant]
        self._tags[tenant] = tag
        self._waiting.add(request, tag)

    def take(self) -> int:
        """Remove and return the first one."""
        request, self._now = self._waiting.take()
        return request

    def last(self) -> int:
        """Return the last one."""
        return self._waiting.last()

    def remove(self, request: int) -> None:
        """Remove a request that nobody waits for any more; the tags behind it stay."""
        self._waiting.remove(request)
