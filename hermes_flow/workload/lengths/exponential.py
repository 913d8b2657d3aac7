"""The distribution ``exponential``: many short lengths and few long ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hermes_flow.config.convert import child
from hermes_flow.config.quantities import Size
from hermes_flow.workload.lengths.distribution import Values, check_bounds, clipped, length_distributions
from hermes_flow.workload.number_checks import require_positive


@length_distributions.register("exponential")
@dataclass(frozen=True, slots=True)
class Exponential:
    """Exponential lengths with this mean, clipped to ``min`` and ``max``."""

    mean: Size
    """The mean before the bounds are applied."""
    min: Size | None = None
    max: Size | None = None

    def check(self, key: str, whole: bool) -> None:
        """Raise ConfigError unless the mean is above 0 and the bounds are lengths."""
        require_positive(self.mean, child(key, "mean"))
        check_bounds(self.min, self.max, key, whole)

    def sample(self, count: int, rng: np.random.Generator, whole: bool) -> Values:
        """Draw ``count`` values; those beyond a bound are set to it."""
        return clipped(rng.standard_exponential(count) * self.mean, self.min, self.max)
