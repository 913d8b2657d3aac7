"""The distribution ``uniform``: lengths between two bounds, all equally likely."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hermes_flow.config.quantities import Size
from hermes_flow.workload.lengths.distribution import Values, check_bounds, length_distributions


@length_distributions.register("uniform")
@dataclass(frozen=True, slots=True)
class Uniform:
    """Uniform from ``min`` to ``max``; of whole numbers both ends are included."""

    min: Size
    max: Size

    def check(self, key: str, whole: bool) -> None:
        """Raise ConfigError unless both bounds are lengths and min ≤ max."""
        check_bounds(self.min, self.max, key, whole)

    def sample(self, count: int, rng: np.random.Generator, whole: bool) -> Values:
        """Draw ``count`` values; where they are to be whole, they already are."""
        draws = rng.random(count)
        if not whole:
            return self.min + (self.max - self.min) * draws
        values: Values = self.min + np.floor((self.max - self.min + 1.0) * draws)
        return values
