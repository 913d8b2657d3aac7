"""The arrival process ``normal``: gaps scatter around the mean, as those of a paced load generator."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hermes_flow.config.quantities import Variation
from hermes_flow.program.same_bits import DIGITS, exp
from hermes_flow.workload.arrivals.process import (
    Arrivals,
    Load,
    Seconds,
    arrival_processes,
    at_mean_rate,
    instants_of_gaps,
)


@arrival_processes.register("normal")
@dataclass(frozen=True, slots=True)
class Normal:
    """Independent gaps from a normal with coefficient of variation ``cv``, those not above 0 drawn again.

    Drawing again would lengthen the mean gap; the gaps are scaled back, so that the mean rate is kept. What
    gives is the spread: the gaps' own coefficient of variation is that of the truncated normal, below ``cv``
    (0.5 becomes 0.46, 1 becomes 0.62; up to 0.3 the difference is under 1 %).
    """

    cv: Variation

    def check(self, key: str) -> None:
        """Accept: the range of ``cv`` is all that there is to check."""

    def instants_s(self, requests: int, rate_per_s: float, rng: np.random.Generator) -> Seconds:
        """Draw ``requests`` instants with truncated normal gaps."""
        accepted = [np.empty(0)]
        missing = requests
        while missing > 0:
            gaps = rng.normal(1.0, self.cv, missing)
            accepted.append(gaps[gaps > 0.0])
            missing -= len(accepted[-1])
        return instants_of_gaps(np.concatenate(accepted) / self._truncated_mean(), rate_per_s)

    def arrivals(self, load: Load, rng: np.random.Generator) -> Arrivals:
        """Draw the arrivals of ``load``."""
        return at_mean_rate(self, load, rng)

    def _truncated_mean(self) -> float:
        """The mean of a normal(1, cv) given that it is above 0: 1 + cv·φ(1/cv)/Φ(1/cv)."""
        cut = 1.0 / self.cv
        density = float(exp(-0.5 * cut * cut)) / math.sqrt(2.0 * math.pi)
        above = 0.5 * (1.0 + round(math.erf(cut / math.sqrt(2.0)), DIGITS))
        return 1.0 + self.cv * density / above
