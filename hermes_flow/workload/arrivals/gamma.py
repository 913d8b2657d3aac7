"""The arrival process ``gamma``: burstier (cv above 1) or smoother (cv below 1) than Poisson."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hermes_flow.config.quantities import Variation
from hermes_flow.workload.arrivals.process import (
    Arrivals,
    Load,
    Seconds,
    arrival_processes,
    at_mean_rate,
    instants_of_gaps,
)


@arrival_processes.register("gamma")
@dataclass(frozen=True, slots=True)
class Gamma:
    """Independent gamma gaps with mean 1/rate and coefficient of variation ``cv`` (1 is Poisson)."""

    cv: Variation

    def check(self, key: str) -> None:
        """Accept: the range of ``cv`` is all that there is to check."""

    def instants_s(self, requests: int, rate_per_s: float, rng: np.random.Generator) -> Seconds:
        """Draw ``requests`` instants with gamma gaps."""
        variance = self.cv * self.cv
        return instants_of_gaps(rng.standard_gamma(1.0 / variance, requests) * variance, rate_per_s)

    def arrivals(self, load: Load, rng: np.random.Generator) -> Arrivals:
        """Draw the arrivals of ``load``."""
        return at_mean_rate(self, load, rng)
