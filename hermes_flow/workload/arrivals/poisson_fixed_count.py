"""The arrival process ``poisson_fixed_count``: Poisson arrivals of which the number in each stage is known.

inference-perf draws the stages of its load type ``constant`` in this way (``ConstantLoadTimer``).
"""

from __future__ import annotations

import math

import numpy as np

from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.workload.arrivals.process import Arrivals, Load, Seconds, arrival_processes, to_ns


@arrival_processes.register("poisson_fixed_count")
@dataclass(frozen=True, slots=True)
class PoissonFixedCount:
    """Exponential gaps, scaled so that rate · duration requests arrive and the last one ends the stage.

    Over seconds this is a Poisson process. Over a large part of a stage its counts vary less. Without stages the
    duration is ``workload.requests`` divided by the rate.
    """

    def check(self, key: str) -> None:
        """Accept: there is nothing to set."""

    def instants_within_s(self, duration_s: float, rate_per_s: float, rng: np.random.Generator) -> Seconds:
        """Draw the instants of a stage: as many as whole requests fit, the last one at its end."""
        count = math.floor(rate_per_s * duration_s * (1.0 + 1e-12))
        return _scaled(count, duration_s, rng)

    def arrivals(self, load: Load, rng: np.random.Generator) -> Arrivals:
        """Draw the arrivals of ``load``; the last one is at their number divided by the mean rate."""
        return Arrivals(to_ns(_scaled(load.requests, load.requests / load.mean_rate_per_s, rng)))


def _scaled(count: int, duration_s: float, rng: np.random.Generator) -> Seconds:
    instants: Seconds = np.cumsum(rng.standard_exponential(count))
    if count:
        instants *= duration_s / instants[-1]
        # A product may miss the end by a bit, and an arrival after a stage's end is not of the stage.
        np.minimum(instants, duration_s, out=instants)
    return instants
