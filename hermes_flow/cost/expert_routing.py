"""Counts the experts of a mixture that a number of tokens choose, and those of the fullest of several devices."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from hermes_flow.config.schema import Experts
from hermes_flow.cost.operators import Floats
from hermes_flow.program.same_bits import DIGITS, log1p, mean, power, total


def distinct_experts(experts: Experts, skew: float, tokens: Floats) -> Floats:
    """Return how many distinct experts 0, 1, … tokens draw on average."""
    if not skew:
        missed = np.full_like(tokens, 1.0 - experts.per_token / experts.count)
        missed[0] = 1.0
        uniform: Floats = experts.count * (1.0 - np.cumprod(missed, dtype=np.float64))
        return uniform
    return _drawn(_chosen(experts, skew), tokens)[0]


def on_fullest_device(experts: Experts, skew: float, tokens: Floats, devices: int) -> tuple[Floats, Floats]:
    """Return the rows and the distinct experts of the device with the most of 0, 1, … tokens.

    Experts are held whole, the same number of them by each of ``devices``, and popular ones lie anywhere. The sums
    over a device's experts scatter around their means as sums of draws without replacement, and all wait for the
    largest. Under uniform routing every device has an equal share.
    """
    rows = tokens * (experts.per_token / devices)
    distinct = distinct_experts(experts, skew, tokens) / devices
    if not skew or devices == 1 or experts.count < devices:
        return rows, distinct
    chosen = _chosen(experts, skew)
    drawn, squares = _drawn(chosen, tokens)
    held = experts.count / devices
    # the variance of a sum of ``held`` draws without replacement, by that of a single draw
    draws = held * (experts.count - held) / (experts.count - 1)
    largest = _largest_of(devices)
    variance = mean((chosen - mean(chosen)) ** 2)
    most = held * mean(chosen) + largest * math.sqrt(draws * variance)
    most = max(most, float(chosen[0]) + (held - 1.0) * mean(chosen[1:]))  # where the most popular one lies
    scatter = np.maximum(squares / experts.count - (drawn / experts.count) ** 2, 0.0)
    return tokens * most, np.minimum(distinct + largest * np.sqrt(draws * scatter), held)


def _largest_of(devices: int) -> float:
    """Return the mean of the largest of so many normal deviations that add up to 0, in their standard deviation.

    Blom's approximation (Statistical Estimates and Transformed Beta-Variables, 1958), which is 1 % off for eight.
    """
    quantile = round(NormalDist().inv_cdf((devices - 0.375) / (devices + 0.25)), DIGITS)
    return quantile * math.sqrt(devices / (devices - 1))


def _chosen(experts: Experts, skew: float) -> Floats:
    """Return the probability of each expert to be chosen by a token."""
    popularity = power(np.arange(1, experts.count + 1), -skew)
    chosen: Floats = np.minimum(1.0, experts.per_token * popularity / total(popularity))
    return chosen


def _drawn(chosen: Floats, tokens: Floats) -> tuple[Floats, Floats]:
    """Return the sums over all experts of the probability that 0, 1, … tokens draw it, and of its square."""
    few = tokens[: _certain(float(chosen.min()))]
    sums: Floats = np.full_like(tokens, float(len(chosen)))
    squares = sums.copy()
    sums[: len(few)] = squares[: len(few)] = 0.0
    for probability in chosen.tolist():
        missed = np.full_like(few, 1.0 - probability)
        missed[0] = 1.0
        drawn = 1.0 - np.cumprod(missed, dtype=np.float64)
        sums[: len(few)] += drawn
        squares[: len(few)] += drawn * drawn
    return sums, squares


def _certain(probability: float) -> int:
    """Return a number of tokens that miss an expert of this probability less often than a float can tell from 0."""
    if probability >= 1.0:
        return 2
    return 2 + math.ceil(-60.0 * math.log(2.0) / float(log1p(-probability)))
