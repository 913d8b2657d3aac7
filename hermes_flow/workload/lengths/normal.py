"""The distribution ``normal``: lengths that scatter around a mean, as benchmark clients draw them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hermes_flow.config.convert import child
from hermes_flow.config.quantities import Size
from hermes_flow.workload.lengths.distribution import Values, check_bounds, clipped, length_distributions
from hermes_flow.workload.number_checks import require_not_negative, require_positive


@length_distributions.register("normal")
@dataclass(frozen=True, slots=True)
class Normal:
    """Normal with ``mean`` and standard deviation ``std``, before ``min`` and ``max`` clip it."""

    mean: Size
    std: Size
    min: Size | None = None
    max: Size | None = None

    def check(self, key: str, whole: bool) -> None:
        """Raise ConfigError unless mean > 0, std ≥ 0 and min ≤ max."""
        require_positive(self.mean, child(key, "mean"))
        require_not_negative(self.std, child(key, "std"))
        check_bounds(self.min, self.max, key, whole)

    def sample(self, count: int, rng: np.random.Generator, whole: bool) -> Values:
        """Draw ``count`` values; those beyond a bound are set to it."""
        return clipped(rng.normal(self.mean, self.std, count), self.min, self.max)
