"""The distribution ``choice``: lengths from a short list, with a weight each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hermes_flow.config.convert import child
from hermes_flow.config.quantities import Size, Weight
from hermes_flow.errors import ConfigError
from hermes_flow.workload.lengths.distribution import Values, length_distributions
from hermes_flow.workload.number_checks import require_length


@length_distributions.register("choice")
@dataclass(frozen=True, slots=True)
class Choice:
    """One of ``values``; ``weights`` (null: all alike) need not sum to 1."""

    values: tuple[Size, ...]
    weights: tuple[Weight, ...] | None = None

    def check(self, key: str, whole: bool) -> None:
        """Raise ConfigError unless there are values, as many weights, and a weight above 0."""
        if not self.values:
            raise ConfigError(child(key, "values"), "empty; expected a list of lengths")
        for number, value in enumerate(self.values):
            require_length(value, child(child(key, "values"), number), whole)
        if self.weights is None:
            return
        place = child(key, "weights")
        if len(self.weights) != len(self.values):
            raise ConfigError(
                place, f"{len(self.weights)} weights for {len(self.values)} values; expected one for each"
            )
        if not any(self.weights):
            raise ConfigError(place, "all are 0; expected at least one above 0")

    def sample(self, count: int, rng: np.random.Generator, whole: bool) -> Values:
        """Draw ``count`` of the values."""
        weights = np.ones(len(self.values)) if self.weights is None else np.asarray(self.weights)
        upto = np.cumsum(weights)
        index = np.searchsorted(upto, rng.random(count) * upto[-1], side="right")
        drawn: Values = np.asarray(self.values, dtype=np.float64)[index]
        return drawn
