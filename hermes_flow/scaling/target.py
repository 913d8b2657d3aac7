"""The scaling policy ``target`` keeps a metric per client near a target."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from hermes_flow.config.quantities import Factor, ShareBelowOne
from hermes_flow.errors import ConfigError
from hermes_flow.program.fleet import ScaledPool, Wanted
from hermes_flow.scaling.measures import Metric, total
from hermes_flow.scaling.policy import scaling_policies

_ROUNDING = 1e-9


@scaling_policies.register("target")
@dataclass(frozen=True, slots=True)
class Target:
    """Wants as many clients as bring ``metric`` to ``target`` per client: its total divided by the target.

    The number is rounded up. Where the total is within ``tolerance`` of what the present clients should have, their
    number stays. This is the rule of the Kubernetes HorizontalPodAutoscaler for average values, which KEDA uses, too.
    Metrics are the tasks that wait (``queued_per_client``), all unfinished tasks (``in_flight_per_client``), the
    known work (``waiting_tokens_per_client``), the tasks that came in the last interval
    (``arrivals_per_s_per_client``), and the mean share of KV blocks in use (``kv_use``).
    """

    metric: Metric
    target: Factor
    # --horizontal-pod-autoscaler-tolerance in the documentation of Kubernetes
    tolerance: ShareBelowOne = 0.1
    oracle: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.metric == "kv_use" and self.target > 1:
            raise ConfigError("target", f"{self.target:g} is above 1; expected a share of the KV blocks")

    @property
    def needs(self) -> frozenset[str]:
        """The KV of clients, for the metric ``kv_use``."""
        return frozenset({"kv"}) if self.metric == "kv_use" else frozenset()

    def start(self, pool: ScaledPool) -> Wanted:
        """Return the function that divides the metric by its target."""
        measure, view, target, tolerance = total(self.metric, pool), pool.view, self.target, self.tolerance

        def wanted(now_ns: int) -> int:
            clients = measure(now_ns) / target
            size = view.size()
            if size and abs(clients / size - 1.0) <= tolerance:
                return size
            return math.ceil(clients - _ROUNDING)

        return wanted
