"""The arrival process ``closed_loop``: a fixed number of users who wait for each answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hermes_flow.config.convert import child
from hermes_flow.config.quantities import Count
from hermes_flow.workload.arrivals.process import Arrivals, Load, arrival_processes
from hermes_flow.workload.lengths import durations_ns, parse_distribution


@arrival_processes.register("closed_loop")
@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """``concurrency`` users; each sends its next request ``think_time_s`` after its last one finished.

    ``think_time_s`` is a number of seconds or a length distribution in seconds (its draws are not rounded,
    and those below 0 are 0). There is no rate: ``workload.rate_per_s`` and ``rate_scale`` are not used.
    """

    concurrency: Count
    think_time_s: Any = 0.0

    def check(self, key: str) -> None:
        """Raise ConfigError unless the think time is one."""
        parse_distribution(self.think_time_s, child(key, "think_time_s"), whole=False)

    def arrivals(self, load: Load, rng: np.random.Generator) -> Arrivals:
        """Draw a think time per request; arrivals follow from the completions during the run."""
        key = "workload.arrivals.think_time_s"
        distribution = parse_distribution(self.think_time_s, key, whole=False)
        return Arrivals(
            arrival_ns=np.zeros(load.requests, dtype=np.int64),
            concurrency=self.concurrency,
            think_ns=durations_ns(distribution, load.requests, rng, key),
        )
