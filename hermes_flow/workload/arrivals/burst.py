"""The arrival process ``burst``: Poisson arrivals in bursts, with few or none between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hermes_flow.config.convert import child
from hermes_flow.config.quantities import FactorFromOne, PositiveSeconds
from hermes_flow.errors import ConfigError
from hermes_flow.workload.arrivals.process import (
    Arrivals,
    Load,
    Seconds,
    arrival_processes,
    at_mean_rate,
    instants_of_gaps,
)


@arrival_processes.register("burst")
@dataclass(frozen=True, slots=True)
class Burst:
    """Poisson at a high rate for ``on_s`` seconds, then a low one for ``off_s``, and so on from time 0.

    ``peak`` is the high rate as a multiple of the mean rate; null puts every request into the bursts, which
    is a peak of (on_s + off_s)/on_s. The low rate is what keeps the mean over a cycle at the workload's rate.
    """

    on_s: PositiveSeconds
    off_s: PositiveSeconds
    peak: FactorFromOne | None = None

    def check(self, key: str) -> None:
        """Raise ConfigError unless ``peak`` is possible at the mean rate."""
        if self.peak is not None and not 1.0 <= self.peak <= self._highest_peak:
            raise ConfigError(
                child(key, "peak"),
                f"{self.peak:g} is not valid; expected a multiple of the mean rate between 1 and "
                f"(on_s + off_s)/on_s = {self._highest_peak:g}, where nothing is left for the time between",
            )

    def instants_s(self, requests: int, rate_per_s: float, rng: np.random.Generator) -> Seconds:
        """Draw ``requests`` instants.

        A Poisson process at the mean rate runs on a clock of its own, which is then stretched: within a
        cycle the clock is ``peak`` times as fast as time during the burst, and slower after it.
        """
        clock = instants_of_gaps(rng.standard_exponential(requests), rate_per_s)
        cycle_s = self.on_s + self.off_s
        peak = self._highest_peak if self.peak is None else self.peak
        burst = cycle_s if self.peak is None else min(peak * self.on_s, cycle_s)
        cycles, phase = np.divmod(clock, cycle_s)
        rest = cycle_s - burst
        after = self.on_s + (phase - burst) * (self.off_s / rest if rest > 0.0 else 0.0)
        within: Seconds = np.where(phase < burst, phase / peak, after)
        instants: Seconds = cycles * cycle_s + within
        return instants

    def arrivals(self, load: Load, rng: np.random.Generator) -> Arrivals:
        """Draw the arrivals of ``load``."""
        return at_mean_rate(self, load, rng)

    @property
    def _highest_peak(self) -> float:
        return (self.on_s + self.off_s) / self.on_s
