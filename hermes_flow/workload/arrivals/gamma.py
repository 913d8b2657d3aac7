"""The arrival process ``gamma``: burstier (cv above 1) or smoother (cv below 1) than Poisson."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hermes_flow.config.convert import child
from hermes_flow.workload.arrivals.process import (
    Arrivals,
    Load,
    Seconds,
    arrival_processes,
    at_mean_rate,
    instants_of_gaps,
)
from hermes_flow.workload.number_checks import require_cv


@arrival_processes.register("gamma")
@dataclass(frozen=True, slots=True)
class Gamma:
    """Independent gamma gaps with mean 1/rate and coefficient of variation ``cv`` (1 is Poisson)."""

    cv: float

    def check(self, key: str) -> None:
        """Raise ConfigError unless ``cv`` is one."""
        require_cv(self.cv, child(key, "cv"))

    def instants_s(self, requests: int, rate_per_s: float, rng: np.random.Generator) -> Seconds:
        """Draw ``requests`` instants with gamma gaps."""
        variance = self.cv**2
        return instants_of_gaps(rng.standard_gamma(1.0 / variance, requests) * variance, rate_per_s)

    def arrivals(self, load: Load, rng: np.random.Generator) -> Arrivals:
        """Draw the arrivals of ``load``."""
        return at_mean_rate(self, load, rng)
