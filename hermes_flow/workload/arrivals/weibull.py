"""The arrival process ``weibull``: gaps with a heavier tail than gamma gaps of the same spread."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hermes_flow.config.convert import child
from hermes_flow.config.quantities import Factor, Variation
from hermes_flow.errors import ConfigError
from hermes_flow.program.same_bits import DIGITS, power
from hermes_flow.workload.arrivals.process import (
    Arrivals,
    Load,
    Seconds,
    arrival_processes,
    at_mean_rate,
    instants_of_gaps,
)

_SHAPES = (0.2, 100.0)  # beyond, draws degenerate
_STEPS = 80  # of bisection, to the last bit


@arrival_processes.register("weibull")
@dataclass(frozen=True, slots=True)
class Weibull:
    """Independent Weibull gaps with mean 1/rate, from their coefficient of variation ``cv`` or their ``shape``.

    A shape of 1 is Poisson; below, gaps are burstier.
    """

    cv: Variation | None = None
    shape: Factor | None = None

    def check(self, key: str) -> None:
        """Raise ConfigError unless one of ``cv`` and ``shape`` is given and possible."""
        if (self.cv is None) == (self.shape is None):
            both = "both are given" if self.cv is not None else "missing"
            raise ConfigError(child(key, "cv"), f"{both}; expected either cv or shape")
        low, high = _SHAPES
        if self.shape is not None and not low <= self.shape <= high:
            raise ConfigError(
                child(key, "shape"), f"{self.shape:g} is not valid; expected {low:g} to {high:g}"
            )
        if self.cv is not None and not _cv(high) <= self.cv <= _cv(low):
            problem = f"{self.cv:g} is not valid; expected {_cv(high):.3g} to {_cv(low):.3g}"
            raise ConfigError(child(key, "cv"), problem)

    def instants_s(self, requests: int, rate_per_s: float, rng: np.random.Generator) -> Seconds:
        """Draw ``requests`` instants with Weibull gaps."""
        shape = self.shape if self.shape is not None else _shape(self.cv or 1.0)
        mean = round(math.gamma(1.0 + 1.0 / shape), DIGITS)
        gaps = power(rng.standard_exponential(requests), 1.0 / shape)  # as rng.weibull draws them
        return instants_of_gaps(gaps / mean, rate_per_s)

    def arrivals(self, load: Load, rng: np.random.Generator) -> Arrivals:
        """Draw the arrivals of ``load``."""
        return at_mean_rate(self, load, rng)


def _cv(shape: float) -> float:
    """The coefficient of variation of Weibull gaps: sqrt(Γ(1 + 2/k)/Γ(1 + 1/k)² − 1)."""
    ratio = math.lgamma(1.0 + 2.0 / shape) - 2.0 * math.lgamma(1.0 + 1.0 / shape)
    return math.sqrt(math.expm1(ratio))


def _shape(cv: float) -> float:
    """Return the shape of gaps with this coefficient of variation, which falls with the shape."""
    low, high = _SHAPES
    for _ in range(_STEPS):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if _cv(middle) > cv else (low, middle)
    return round(math.sqrt(low * high), DIGITS)
