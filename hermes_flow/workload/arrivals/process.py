"""The interface and the registry of arrival processes."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from hermes_flow.config.registry import Registry
from hermes_flow.errors import ConfigError
from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.program.units import NS_PER_S, Ints
from hermes_flow.workload.number_checks import MAX_SECONDS

Seconds = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Load:
    """The number of arrivals (``of`` requests or sessions) and their mean rate: ``rate_per_s`` · ``rate_scale``."""

    requests: int
    rate_per_s: float | None
    rate_scale: float = 1.0
    of: str = "requests"

    @property
    def mean_rate_per_s(self) -> float:
        """The rate after scaling; raises ConfigError if the workload has none above 0."""
        if self.rate_per_s is None:
            raise ConfigError(
                "workload.rate_per_s", f"null; these arrivals need a rate in {self.of} per second"
            )
        return self.rate_per_s * self.rate_scale


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Sorted arrival instants in ns; for a closed loop all zero, with its concurrency and think times."""

    arrival_ns: Ints
    concurrency: int | None = None
    think_ns: Ints | None = None


class ArrivalProcess(Protocol):
    """The process that ``workload.arrivals`` names."""

    def check(self, key: str) -> None:
        """Raise ConfigError, below ``key``, where the fields do not describe a process."""

    def arrivals(self, load: Load, rng: np.random.Generator) -> Arrivals:
        """Draw the arrivals of ``load``: as many as it asks for, or fewer where the process itself ends."""


@runtime_checkable
class RateProcess(Protocol):
    """An arrival process with a mean rate, which can also run within a stage."""

    def instants_s(self, requests: int, rate_per_s: float, rng: np.random.Generator) -> Seconds:
        """Draw ``requests`` rising instants after 0; fewer requests are the beginning of more."""


@runtime_checkable
class CountedProcess(Protocol):
    """An arrival process that knows how many requests arrive within a stage."""

    def instants_within_s(self, duration_s: float, rate_per_s: float, rng: np.random.Generator) -> Seconds:
        """Draw the rising instants of a stage of this duration, all after 0 and none after its end."""


arrival_processes: Registry[ArrivalProcess] = Registry(
    "arrival process", tag="process", package=__package__, methods=("check", "arrivals")
)


def parse_arrivals(value: Any, key: str) -> ArrivalProcess:
    """Return the checked arrival process that ``value`` (a name, or a mapping) describes."""
    process = arrival_processes.parse(value, key)
    process.check(key)
    return process


def at_mean_rate(process: RateProcess, load: Load, rng: np.random.Generator) -> Arrivals:
    """Return the arrivals of a process that runs at one mean rate from beginning to end."""
    return Arrivals(to_ns(process.instants_s(load.requests, load.mean_rate_per_s, rng)))


def instants_of_gaps(gaps: Seconds, rate_per_s: float) -> Seconds:
    """Return the instants after each of ``gaps``, which have mean 1, stretched to the rate."""
    instants: Seconds = np.cumsum(gaps) / rate_per_s
    return instants


def to_ns(instants_s: Seconds) -> Ints:
    """Return seconds as whole nanoseconds; raises ConfigError beyond what 64 bits hold."""
    if len(instants_s) and instants_s[-1] > MAX_SECONDS:
        raise ConfigError(
            "workload.rate_per_s",
            f"so low that the last request would come after {instants_s[-1]:.3g} s; "
            f"expected all within {MAX_SECONDS:.3g} s",
        )
    return np.rint(instants_s * NS_PER_S).astype(np.int64)
