"""The distribution ``quantiles``: measured quantiles, with linear interpolation between them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from hermes_flow.config.convert import child
from hermes_flow.config.quantities import Size
from hermes_flow.errors import ConfigError
from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.workload.lengths.distribution import Values, check_bounds, clipped, length_distributions


@length_distributions.register("quantiles")
@dataclass(frozen=True, slots=True)
class Quantiles:
    """The inverse distribution function through ``points``, clipped to ``min`` and ``max``.

    ``points`` are quantiles (from 0, the smallest length, to 1, the largest) with their values, as a mapping
    ``{0: 2, 0.5: 1020, 1: 14050}`` or a list of pairs ``[[0, 2], [0.5, 1020], [1, 14050]]``, in rising order.
    """

    points: Any
    min: Size | None = None
    max: Size | None = None

    def check(self, key: str, whole: bool) -> None:
        """Raise ConfigError unless the points are rising from quantile 0 to quantile 1."""
        place = child(key, "points")
        pairs = _pairs(self.points, place)
        if len(pairs) < 2 or pairs[0][0] != 0 or pairs[-1][0] != 1:
            raise ConfigError(place, "expected points from quantile 0 (the smallest) to 1 (the largest)")
        for (quantile, value), (later, larger) in itertools.pairwise(pairs):
            if later <= quantile:
                raise ConfigError(
                    place, f"quantile {later:g} follows {quantile:g}; expected rising quantiles"
                )
            if larger < value:
                raise ConfigError(
                    place,
                    f"quantile {later:g} is {larger:g}, below quantile {quantile:g}, which is {value:g}",
                )
        least = 1 if whole else 0
        if pairs[0][1] < least:
            raise ConfigError(place, f"quantile 0 is {pairs[0][1]:g}; expected {least} or more")
        check_bounds(self.min, self.max, key, whole)

    def sample(self, count: int, rng: np.random.Generator, whole: bool) -> Values:
        """Draw ``count`` values; those beyond a bound are set to it."""
        quantiles, values = zip(*_pairs(self.points, "points"), strict=True)
        return clipped(np.interp(rng.random(count), quantiles, values), self.min, self.max)


def _pairs(points: Any, key: str) -> list[tuple[float, float]]:
    entries = list(points.items()) if isinstance(points, Mapping) else points
    if not isinstance(entries, (list, tuple)):
        raise ConfigError(key, f"{points!r} is not valid; expected a mapping from quantile to value")
    return [_pair(entry, key) for entry in entries]


def _pair(entry: Any, key: str) -> tuple[float, float]:
    if isinstance(entry, (list, tuple)) and len(entry) == 2 and all(_is_number(figure) for figure in entry):
        return float(entry[0]), float(entry[1])
    shown = f"{entry[0]}: {entry[1]}" if isinstance(entry, tuple) and len(entry) == 2 else repr(entry)
    raise ConfigError(key, f"{shown} is not valid; expected a quantile and its value, both numbers")


def _is_number(figure: Any) -> bool:
    return isinstance(figure, (int, float)) and not isinstance(figure, bool) and math.isfinite(figure)
