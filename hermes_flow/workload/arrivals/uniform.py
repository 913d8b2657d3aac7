"""The arrival process ``uniform``: gaps between zero and twice the mean, all equally likely."""

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


@arrival_processes.register("uniform")
@dataclass(frozen=True, slots=True)
class Uniform:
    """Independent gaps, uniform in [0, 2/rate]; their coefficient of variation is 1/√3."""

    def check(self, key: str) -> None:
        """Accept: there is nothing to set."""

    def instants_s(self, requests: int, rate_per_s: float, rng: np.random.Generator) -> Seconds:
        """Draw ``requests`` instants with uniform gaps."""
        return instants_of_gaps(rng.uniform(0.0, 2.0, requests), rate_per_s)

    def arrivals(self, load: Load, rng: np.random.Generator) -> Arrivals:
        """Draw the arrivals of ``load``."""
        return at_mean_rate(self, load, rng)
