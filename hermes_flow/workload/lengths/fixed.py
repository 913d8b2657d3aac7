"""The distribution ``fixed``: one length for all requests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hermes_flow.config.convert import child
from hermes_flow.config.quantities import Size
from hermes_flow.workload.lengths.distribution import Values, length_distributions
from hermes_flow.workload.number_checks import require_length


@length_distributions.register("fixed")
@dataclass(frozen=True, slots=True)
class Fixed:
    """Every draw is ``value``."""

    value: Size

    def check(self, key: str, whole: bool) -> None:
        """Raise ConfigError unless ``value`` is a length."""
        require_length(self.value, child(key, "value"), whole)

    def sample(self, count: int, rng: np.random.Generator, whole: bool) -> Values:
        """Return ``count`` equal values; nothing is drawn."""
        return np.full(count, self.value)
