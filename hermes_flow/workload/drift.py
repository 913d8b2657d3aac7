"""Lets the rate and the lengths of a drawn workload drift over the run, in parts of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hermes_flow.config.workloads import DriftPart
from hermes_flow.errors import ConfigError
from hermes_flow.program.same_bits import exp, log, power, total
from hermes_flow.program.same_bits import mean as mean_of
from hermes_flow.program.units import NS_PER_S, Ints
from hermes_flow.workload.arrivals.process import ArrivalProcess, RateProcess
from hermes_flow.workload.streams import stream

Floats = NDArray[np.float64]

_KEY = "workload.drift"
_EXPONENTS = (0.02, 50.0)
_TABLE = 400
_THINNED = 2000
_ENOUGH = 1000
_CORRECTIONS = 4


def check_drift(parts: Sequence[DriftPart], process: ArrivalProcess, *, repeated: bool) -> None:
    """Raise ConfigError where the parts do not describe a drift, or the arrivals cannot have one."""
    if not isinstance(process, RateProcess):
        raise ConfigError(
            _KEY,
            "the arrival process sets the rate or the number of requests over time itself; a drift needs one "
            "with a mean rate alone, such as poisson",
        )
    if repeated and any(part.input_tokens is not None for part in parts):
        raise ConfigError(
            _KEY, "prompts that repeat (workload.repeated_prompts) cannot drift in their input_tokens"
        )
    if parts and not any(part.rate > 0 for part in parts):
        raise ConfigError(_KEY, "the rate is 0 in every part; expected at least one above 0")


def drifting_arrivals(arrival_ns: Ints, mean_rate_per_s: float, parts: Sequence[DriftPart]) -> Ints:
    """Return the arrivals with the time of the run warped, so that each part has its share and its rate.

    The mean rate over the run stays, and the process keeps its kind within every part. After the last part its rate
    goes on.
    """
    run_s = len(arrival_ns) / mean_rate_per_s
    shares = np.array([part.share for part in parts])
    rates = np.array([part.rate for part in parts])
    work = shares * rates
    ends_s = np.concatenate(([0.0], np.cumsum(shares / total(shares)))) * run_s
    passed_s = np.concatenate(([0.0], np.cumsum(work / total(work)))) * run_s
    passed_s += np.arange(len(passed_s)) * 1e-12 * run_s  # a part of rate 0 is a jump
    within = np.interp(arrival_ns / NS_PER_S, passed_s, ends_s)
    last = np.flatnonzero(rates)[-1]
    speed = np.diff(ends_s)[last] / np.diff(passed_s)[last]
    beyond = np.maximum(arrival_ns / NS_PER_S - passed_s[-1], 0.0) * speed
    warped: Ints = np.rint((within + beyond) * NS_PER_S).astype(np.int64)
    return warped


def part_of(arrival_ns: Ints, mean_rate_per_s: float, parts: Sequence[DriftPart]) -> Ints:
    """Return the part in which each request arrives."""
    run_s = len(arrival_ns) / mean_rate_per_s
    shares = np.array([part.share for part in parts])
    ends_s = np.cumsum(shares / total(shares)) * run_s
    return np.minimum(np.searchsorted(ends_s, arrival_ns / NS_PER_S, "right"), len(parts) - 1)


def drifting_lengths(drawn: Ints, part: Ints, drift: Sequence[DriftPart], key: str, seed: int) -> Ints:
    """Return the ``drawn`` lengths in another order, in which their mean in each part is close to its ``key``.

    A part takes quantile u**a of all drawn lengths for a uniform u; the exponent a moves weight between short and
    long lengths, and None leaves the part as it is. Then the lengths are matched by rank with those that were drawn,
    so that the distribution over the whole run does not change. As that moves the means, the exponents are corrected
    a few times. Raises ConfigError for a mean out of their reach.
    """
    means = [getattr(own, key) for own in drift]
    if not any(means):
        return drawn
    ranked, rng = np.sort(drawn), stream(seed, f"{key}_drift")
    uniform, ties = rng.random(len(drawn)), rng.random(len(drawn))
    parts = [np.flatnonzero(part == number) for number in range(len(means))]
    aims = [None if not len(here) else mean for mean, here in zip(means, parts, strict=True)]
    found, table = drawn, _Means(ranked)
    for _ in range(_CORRECTIONS):
        wanted = drawn.copy()
        for number, (aim, here) in enumerate(zip(aims, parts, strict=True)):
            if aim is not None:
                exponent = table.exponent(aim, f"{_KEY}.{number}.{key}")
                places = power(uniform[here], exponent) * len(ranked)
                wanted[here] = ranked[np.minimum(places.astype(np.int64), len(ranked) - 1)]
        found = np.empty_like(drawn)
        found[np.lexsort((ties, wanted))] = ranked
        aims = [
            None if aim is None or mean is None else _corrected(aim, mean, mean_of(found[here]), ranked)
            for aim, mean, here in zip(aims, means, parts, strict=True)
        ]
    return found


def _corrected(aim: float, mean: float, reached: float, ranked: Ints) -> float:
    """Return the next aim for a part, within the reach of the lengths."""
    longest, shortest = float(ranked[-1]), float(ranked[0])
    return min(max(aim * mean / reached, 0.98 * shortest + 0.02 * longest), 0.98 * longest)


class _Means:
    """The mean of the lengths at quantiles u**a, as a table over the exponent a."""

    def __init__(self, ranked: Ints) -> None:
        least, most = log(_EXPONENTS).tolist()
        self._exponents = exp(np.linspace(least, most, _TABLE))
        thinned = ranked[np.linspace(0, len(ranked) - 1, min(len(ranked), _THINNED)).astype(np.int64)]
        uniform = (np.arange(len(thinned)) + 0.5) / len(thinned)
        places = (power(uniform[None, :], self._exponents[:, None]) * len(thinned)).astype(np.int64)
        self._means = thinned[places].sum(axis=1) / len(thinned)
        self._mean, self._count = mean_of(ranked), len(ranked)

    def exponent(self, mean: float, key: str) -> float:
        """Return the exponent with which the lengths have this mean, or come nearest to it."""
        within = self._means[-1] <= mean <= self._means[0]
        if not within and self._count >= _ENOUGH:  # few draws may miss the long lengths by chance
            raise ConfigError(key, f"{mean:g} is out of reach of the lengths, whose mean is {self._mean:g}")
        return float(np.interp(-mean, -self._means, self._exponents))
