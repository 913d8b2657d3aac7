"""The arrival process ``constant``: one request every 1/rate seconds, the first after one gap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hermes_flow.workload.arrivals.process import (
    Arrivals,
    Load,
    Seconds,
    arrival_processes,
    at_mean_rate,
    instants_of_gaps,
)


@arrival_processes.register("constant")
@dataclass(frozen=True, slots=True)
class Constant:
    """Equal gaps; nothing is drawn."""

    def check(self, key: str) -> None:
        """Accept: there is nothing to set."""

    def instants_s(self, requests: int, rate_per_s: float, rng: np.random.Generator) -> Seconds:
        """Return ``requests`` evenly spaced instants."""
        return instants_of_gaps(np.ones(requests), rate_per_s)

    def arrivals(self, load: Load, rng: np.random.Generator) -> Arrivals:
        """Return the arrivals of ``load``."""
        return at_mean_rate(self, load, rng)
