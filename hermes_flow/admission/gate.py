"""The settings that all admission policies have: limits, what happens beyond them, and retries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hermes_flow.config.quantities import (
    CountOrZero,
    Factor,
    Many,
    PositiveDuration,
    Seconds,
    ShareBelowOne,
    Turns,
)
from hermes_flow.errors import ConfigError
from hermes_flow.program.admission import Limits, RetryRule
from hermes_flow.program.units import NS_PER_S, Ints
from hermes_flow.workload.lengths import durations_ns, parse_distribution


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a request that was turned away comes again, and after which time."""

    times: Turns
    """The most times that it comes again."""
    backoff_s: Seconds
    """The time until it comes again for the first time."""
    factor: Factor = 2.0
    """Each further wait is so many times the one before it."""
    jitter: ShareBelowOne = 0.0
    """Each wait is drawn evenly from this share below to this share above it."""


@dataclass(frozen=True, slots=True)
class Gate:
    """A gateway with at most ``max_in_flight`` requests behind it and ``max_queued`` in its queue."""

    max_in_flight: Many
    """The most requests in the cluster at once."""
    max_queued: CountOrZero | None = None
    """The most requests that wait at the gateway; null sets no limit, 0 lets none wait."""
    on_full: Literal["reject", "hold"] = "reject"
    """``reject`` turns a request away for which there is no place; ``hold`` lets it wait outside."""
    shed: Literal["newest", "last"] = "newest"
    """A full queue turns away the request that comes (``newest``), or the ``last`` in its order."""
    retry: Retry | None = None
    """How often those that are turned away come again; null: they do not."""
    max_wait_s: dict[str, Any] | PositiveDuration | None = None
    """The longest wait at the gateway, after which a request is turned away: a number, or a distribution of which
    every request draws its own. Null sets no limit.
    """

    def __post_init__(self) -> None:
        if self.max_wait_s is not None:
            parse_distribution(self.max_wait_s, "max_wait_s", whole=False)
        if self.on_full == "hold" and self.shed != "newest":
            raise ConfigError("shed", "no queue is full with on_full=hold; leave it out")
        if self.on_full == "hold" and self.retry is not None and self.max_wait_s is None:
            raise ConfigError("retry", "nobody is turned away with on_full=hold; leave it out")
        if self.on_full == "reject" and self.max_queued is None:
            if self.shed != "newest":
                raise ConfigError("shed", "a queue without max_queued is never full; set max_queued")
            if self.retry is not None and self.max_wait_s is None:
                raise ConfigError("retry", "a queue without max_queued is never full; set max_queued")

    @property
    def limits(self) -> Limits:
        """The limits of the gateway."""
        retry = self.retry
        rule = None
        if retry is not None:
            rule = RetryRule(retry.times, round(retry.backoff_s * NS_PER_S), retry.factor, retry.jitter)
        waits = None if self.max_wait_s is None else _DrawnWaits(self.max_wait_s)
        holds, sheds_last = self.on_full == "hold", self.shed == "last"
        return Limits(self.max_in_flight, self.max_queued, holds, sheds_last, rule, waits)


@dataclass(frozen=True, slots=True)
class _DrawnWaits:
    """The longest waits of requests, by what ``max_wait_s`` says."""

    max_wait_s: dict[str, Any] | float

    def draw(self, count: int, rng: np.random.Generator) -> Ints:
        """Return the longest wait of ``count`` requests, in nanoseconds."""
        key = "cluster.admission.max_wait_s"
        return durations_ns(parse_distribution(self.max_wait_s, key, whole=False), count, rng, key)
