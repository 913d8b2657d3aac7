"""The contract between the gateway in front of a cluster and its admission policy.

A policy is a frozen dataclass whose fields are its settings: ``admission: {policy: name, field: value}``. It has the
limits of ``Limits``, and ``start`` returns an empty queue for one run. The gateway asks the queue who is next, and,
where it is full, who is last.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.program.requests import Requests
from hermes_flow.program.units import Ints


@dataclass(frozen=True, slots=True)
class RetryRule:
    """A request that is turned away comes again up to ``times`` times.

    The n-th time it waits ``backoff_ns`` · ``factor``^(n−1), drawn evenly from ± ``jitter`` of that.
    """

    times: int
    backoff_ns: int
    factor: float
    jitter: float


class Waits(Protocol):
    """How long requests wait at the gateway at most, each time that they come."""

    def draw(self, count: int, rng: np.random.Generator) -> Ints:
        """Return the longest wait of ``count`` requests, in nanoseconds."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a gateway lets in: None is no limit. ``sheds_last`` says whom a full queue turns away.

    ``max_wait`` turns away who has waited so long.

    With ``holds`` nobody is turned away: those for whom there is no place wait outside, in order of arrival.
    """

    max_in_flight: int | None
    max_queued: int | None
    holds: bool
    sheds_last: bool
    retry: RetryRule | None
    max_wait: Waits | None = None


class AdmissionQueue(Protocol):
    """The requests that wait at the gateway, in the order in which they are let in."""

    def __len__(self) -> int:
        """Return how many wait."""

    def enter(self, request: int, came_ns: int) -> None:
        """Add a request that came to the gateway at ``came_ns`` for the first time."""

    def take(self) -> int:
        """Remove and return the first one."""

    def last(self) -> int:
        """Return the last one."""

    def remove(self, request: int) -> None:
        """Remove a request that nobody waits for any more."""


class AdmissionPolicy(Protocol):
    """Limits, and an order of waiting."""

    @property
    def limits(self) -> Limits:
        """The limits of the gateway."""

    def start(self, requests: Requests) -> AdmissionQueue:
        """Return an empty queue; raises ConfigError where the workload lacks what the order needs."""
