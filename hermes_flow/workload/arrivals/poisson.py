"""The arrival process ``poisson``: independent exponential gaps, as many independent users give."""

from __future__ import annotations

import numpy as np

from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.workload.arrivals.process import (
    Arrivals,
    Load,
    Seconds,
    arrival_processes,
    at_mean_rate,
    instants_of_gaps,
)


@arrival_processes.register("poisson")
@dataclass(frozen=True, slots=True)
class Poisson:
    """Gaps are exponential with mean 1/rate; their coefficient of variation is 1."""

    def check(self, key: str) -> None:
        """Accept: there is nothing to set."""

    def instants_s(self, requests: int, rate_per_s: float, rng: np.random.Generator) -> Seconds:
        """Draw ``requests`` instants of a Poisson process."""
        return instants_of_gaps(rng.standard_exponential(requests), rate_per_s)

    def arrivals(self, load: Load, rng: np.random.Generator) -> Arrivals:
        """Draw the arrivals of ``load``."""
        return at_mean_rate(self, load, rng)
