"""The interface and the registry of length distributions, and rounding to tokens or nanoseconds."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hermes_flow.config.convert import child
from hermes_flow.config.registry import Registry
from hermes_flow.errors import ConfigError
from hermes_flow.program.units import NS_PER_S, Ints
from hermes_flow.workload.number_checks import MAX_SECONDS, require_length

Values = NDArray[np.float64]

MAX_TOKENS = 1e12  # far beyond any model; sums over millions of requests still fit 64 bits


class Distribution(Protocol):
    """The distribution that ``workload.input_tokens`` or ``workload.output_tokens`` names."""

    def check(self, key: str, whole: bool) -> None:
        """Raise ConfigError, below ``key``, where the fields do not describe a distribution.

        ``whole``: of lengths in tokens, which are whole and at least 1, as their bounds must be.
        """

    def sample(self, count: int, rng: np.random.Generator, whole: bool) -> Values:
        """Draw ``count`` values, finite, one draw each: fewer values are the beginning of more.

        ``whole``: the caller rounds them to whole numbers.
        """


length_distributions: Registry[Distribution] = Registry(
    "length distribution", tag="distribution", package=__package__
)


def parse_distribution(value: Any, key: str, whole: bool) -> Distribution:
    """Return the checked distribution that ``value`` describes; a number is shorthand for ``fixed``."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        require_length(float(value), key, whole)
        value = {length_distributions.tag: "fixed", "value": value}
    distribution = length_distributions.parse(value, key)
    distribution.check(key, whole)
    return distribution


def parse_lengths(value: Any, key: str) -> Distribution:
    """Return the checked distribution of token numbers that ``value`` describes."""
    return parse_distribution(value, key, whole=True)


def tokens(distribution: Distribution, count: int, rng: np.random.Generator, key: str) -> Ints:
    """Draw ``count`` lengths: rounded to the nearest whole token, and at least 1.

    Raises ConfigError at ``key`` where a length is out of any reason.
    """
    values = distribution.sample(count, rng, whole=True)
    if count and values.max() > MAX_TOKENS:
        raise ConfigError(key, f"gives {values.max():.3g}; expected at most {MAX_TOKENS:.0e}")
    return np.maximum(np.rint(values), 1.0).astype(np.int64)


def durations_ns(distribution: Distribution, count: int, rng: np.random.Generator, key: str) -> Ints:
    """Draw ``count`` durations from a distribution of seconds, in ns; those below 0 are 0.

    Raises ConfigError at ``key`` where one is beyond what 64 bits hold.
    """
    seconds: Values = np.maximum(distribution.sample(count, rng, whole=False), 0.0)
    if count and seconds.max() > MAX_SECONDS:
        raise ConfigError(key, f"gives {seconds.max():.3g} s; expected seconds")
    return np.rint(seconds * NS_PER_S).astype(np.int64)


def check_bounds(low: float | None, high: float | None, key: str, whole: bool) -> None:
    """Raise ConfigError where ``min`` or ``max`` below ``key`` is no length, or min is above max."""
    for name, bound in (("min", low), ("max", high)):
        if bound is not None:
            require_length(bound, child(key, name), whole)
    if low is not None and high is not None and low > high:
        raise ConfigError(child(key, "min"), f"{low:g} is above {child(key, 'max')}, which is {high:g}")


def clipped(values: Values, low: float | None, high: float | None) -> Values:
    """Return ``values``, limited to the bounds.

    Clipped and not drawn again, so that a bound changes the lengths beyond it and no other.
    """
    if low is None and high is None:
        return values
    return np.clip(values, low, high)
