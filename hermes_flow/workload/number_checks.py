"""Checks single numbers of a workload config; each error names the full key and what was expected."""

from __future__ import annotations

import math

from hermes_flow.errors import ConfigError

LEAST_CV = 0.001
MOST_CV = 100.0
MAX_SECONDS = 9_000_000_000  # int64 nanoseconds reach a little further: 292 years


def require_positive(value: float, key: str, what: str = "a number") -> None:
    """Raise ConfigError unless ``value`` is finite and greater than 0."""
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(key, f"{value:g} is not valid; expected {what} greater than 0")


def require_not_negative(value: float, key: str, what: str = "a number") -> None:
    """Raise ConfigError unless ``value`` is finite and 0 or more."""
    if not (math.isfinite(value) and value >= 0):
        raise ConfigError(key, f"{value:g} is not valid; expected {what} of 0 or more")


def require_count(value: int, key: str, what: str) -> None:
    """Raise ConfigError unless ``value`` is at least 1."""
    if value < 1:
        raise ConfigError(key, f"{value} is not valid; expected {what}, at least 1")


def require_cv(value: float, key: str) -> None:
    """Raise ConfigError unless ``value`` can be a coefficient of variation (beyond, draws degenerate)."""
    if not LEAST_CV <= value <= MOST_CV:
        raise ConfigError(
            key,
            f"{value:g} is not valid; expected a coefficient of variation from {LEAST_CV:g} to {MOST_CV:g}",
        )


def require_length(value: float, key: str, whole: bool) -> None:
    """Raise ConfigError unless ``value`` is a whole number from 1 (``whole``), or else a number of 0 or more."""
    if not whole:
        require_not_negative(value, key)
    elif not (math.isfinite(value) and value >= 1 and value.is_integer()):
        raise ConfigError(key, f"{value:g} is not valid; expected a whole number, at least 1")
