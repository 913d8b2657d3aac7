"""The arrival process ``stages``: a rate that changes at given times, as in a load test or over a day."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np

from hermes_flow.config.convert import child
from hermes_flow.config.quantities import PositiveSeconds, RateOrPause
from hermes_flow.errors import ConfigError
from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.program.units import NS_PER_S, Ints
from hermes_flow.workload.arrivals.process import (
    Arrivals,
    CountedProcess,
    Load,
    RateProcess,
    arrival_processes,
    parse_arrivals,
    to_ns,
)


@dataclass(frozen=True, slots=True)
class Stage:
    """``duration_s`` seconds at ``rate_per_s`` requests per second (0 is a pause), by any open process."""

    rate_per_s: RateOrPause
    duration_s: PositiveSeconds
    process: Any = "poisson"


@arrival_processes.register("stages")
@dataclass(frozen=True, slots=True)
class Stages:
    """Stages one after the other, each with a rate and a process that starts anew.

    The stages set the rates (times ``workload.rate_scale``; ``workload.rate_per_s`` is not used) and end
    the workload; ``workload.requests`` is an upper limit. An arrival at the very end of a stage is its own.
    """

    stages: tuple[Stage, ...]
    """The stages of the load, one after another: each with ``rate_per_s``, ``duration_s`` and an optional
    ``process``.
    """

    def check(self, key: str) -> None:
        """Raise ConfigError unless there are stages, each with a duration, a rate and an open process."""
        if not self.stages:
            raise ConfigError(child(key, "stages"), "empty; expected a list of {rate_per_s, duration_s}")
        for number, stage in enumerate(self.stages):
            place = child(child(key, "stages"), number)
            _open_process(stage, place)

    def arrivals(self, load: Load, rng: np.random.Generator) -> Arrivals:
        """Draw the stages in turn until they end or ``load.requests`` is reached."""
        parts: list[Ints] = []
        missing = load.requests
        begin_ns = 0
        # A stream per stage: what one stage draws leaves the others alone.
        for stage, stage_rng in zip(self.stages, rng.spawn(len(self.stages)), strict=True):
            duration_ns = round(stage.duration_s * NS_PER_S)
            if stage.rate_per_s > 0 and missing > 0:
                rate_per_s = stage.rate_per_s * load.rate_scale
                process = _open_process(stage, "workload.arrivals")
                if isinstance(process, CountedProcess):
                    within = to_ns(process.instants_within_s(stage.duration_s, rate_per_s, stage_rng))[
                        :missing
                    ]
                else:
                    within = arrivals_within(process, duration_ns, rate_per_s, missing, stage_rng)
                parts.append(begin_ns + within)
                missing -= len(within)
            begin_ns += duration_ns
        if missing == load.requests:
            raise ConfigError("workload.arrivals.stages", "no request arrives before the stages end")
        return Arrivals(np.concatenate(parts))


def _open_process(stage: Stage, place: str) -> RateProcess | CountedProcess:
    process = parse_arrivals(stage.process, child(place, "process"))
    if not isinstance(process, (RateProcess, CountedProcess)):
        raise ConfigError(
            child(place, "process"), f"{stage.process!r} cannot run within a stage; it has no mean rate"
        )
    return process


def arrivals_within(
    process: RateProcess, duration_ns: int, rate_per_s: float, limit: int, rng: np.random.Generator
) -> Ints:
    """Return the arrivals of a process up to ``duration_ns``, but no more than ``limit``.

    The number is not known before: guess, and where the guess falls short draw the same again, and more.
    """
    duration_s = duration_ns / NS_PER_S
    guess = math.ceil(1.2 * rate_per_s * duration_s) + 50
    while True:
        count = min(guess, limit)
        instants_s = process.instants_s(count, rate_per_s, copy.deepcopy(rng))
        instants = to_ns(np.minimum(instants_s, duration_s + 1.0))
        if count == limit or instants[-1] > duration_ns:
            return instants[instants <= duration_ns]
        guess *= 2
