"""The distribution ``lognormal``: lengths with a long tail, as most prompts and answers have."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hermes_flow.config.convert import child
from hermes_flow.config.quantities import Size, Variation
from hermes_flow.errors import ConfigError
from hermes_flow.program.same_bits import exp, log, log1p
from hermes_flow.workload.lengths.distribution import Values, check_bounds, clipped, length_distributions
from hermes_flow.workload.number_checks import require_cv, require_positive

_P99 = 2.3263478740408408  # the 99th percentile of the standard normal distribution


@length_distributions.register("lognormal")
@dataclass(frozen=True, slots=True)
class Lognormal:
    """Lognormal by its ``mean`` and ``cv``, or by its ``median`` and ``p99``, before bounds clip it.

    ``cv`` is the coefficient of variation: standard deviation over mean.
    """

    mean: Size | None = None
    cv: Variation | None = None
    median: Size | None = None
    p99: Size | None = None
    min: Size | None = None
    """Shorter lengths are set to this."""
    max: Size | None = None
    """Longer lengths are set to this."""

    def check(self, key: str, whole: bool) -> None:
        """Raise ConfigError unless exactly one pair is given, both of it, and it describes a lognormal."""
        given = [name for name in ("mean", "cv", "median", "p99") if getattr(self, name) is not None]
        if given not in (["mean", "cv"], ["median", "p99"]):
            shown = " and ".join(given) if given else "none of them"
            raise ConfigError(key, f"has {shown}; expected mean and cv, or median and p99")
        if self.mean is not None and self.cv is not None:
            require_positive(self.mean, child(key, "mean"))
            require_cv(self.cv, child(key, "cv"))
        if self.median is not None and self.p99 is not None:
            require_positive(self.median, child(key, "median"))
            require_positive(self.p99, child(key, "p99"))
            if self.p99 < self.median:
                raise ConfigError(child(key, "p99"), f"{self.p99:g} is below the median, {self.median:g}")
        check_bounds(self.min, self.max, key, whole)

    def sample(self, count: int, rng: np.random.Generator, whole: bool) -> Values:
        """Draw ``count`` values; those beyond a bound are set to it."""
        mu, sigma = self._log_scale()
        return clipped(exp(mu + sigma * rng.standard_normal(count)), self.min, self.max)

    def _log_scale(self) -> tuple[float, float]:
        """Mean and standard deviation of the logarithm."""
        if self.mean is not None and self.cv is not None:
            variance = float(log1p(self.cv * self.cv))
            return float(log(self.mean)) - 0.5 * variance, math.sqrt(variance)
        assert self.median is not None
        assert self.p99 is not None
        return float(log(self.median)), float(log(self.p99 / self.median)) / _P99
