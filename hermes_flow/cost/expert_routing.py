"""Counts the experts of a mixture that a number of tokens choose, and those of the fullest of several devices."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from hermes_flow.config.schema import Experts
from hermes_flow.cost.expert_groups import distinct_ratio, row_ratio
from hermes_flow.cost.operators import Floats
from hermes_flow.cost.redundant_experts import copies_of, fullest_load
from hermes_flow.program.same_bits import DIGITS, log1p, mean, power, total


def distinct_experts(experts: Experts, tokens: Floats, redundant: int = 0) -> Floats:
    """Return how many distinct experts 0, 1, … tokens draw on average; each of ``redundant`` copies is one more."""
    if redundant:
        return _drawn(copies_of(_chosen(experts), redundant), tokens)
    if not experts.routing_skew:
        missed = np.full_like(tokens, 1.0 - experts.per_token / experts.count)
        missed[0] = 1.0
        uniform: Floats = experts.count * (1.0 - np.cumprod(missed, dtype=np.float64))
        return uniform
    return _drawn(_chosen(experts), tokens)


def on_fullest_device(
    experts: Experts, tokens: Floats, devices: int, redundant: int = 0
) -> tuple[Floats, Floats]:
    """Return the rows and the distinct experts of the device with the most of 0, 1, … tokens.

    Experts are held whole, the same number of them by each of ``devices``, and popular ones lie anywhere. All devices
    wait for the one with the largest share. An expert is drawn or not, so the number of a device's drawn ones
    scatters as a sum of such values without replacement, whatever the chance of each of them. With ``redundant``
    copies a load balancer says where all lie (``redundant_experts``), and groups are torn apart. Without, tokens
    choose the experts of a group together (``expert_groups``).
    """
    rows = rows_on_fullest(experts, tokens, devices, redundant)
    distinct = distinct_experts(experts, tokens, redundant) / devices
    if not _unequal(experts, devices):
        return rows, distinct
    copies = experts.count + redundant
    held = copies / devices
    share = distinct / held
    scatter = _draws(copies, devices) * share * (1.0 - share)
    if not redundant:
        scatter = scatter * distinct_ratio(experts, tokens, devices)
    return rows, np.minimum(distinct + _largest_of(devices) * np.sqrt(scatter), held)


def rows_on_fullest(experts: Experts, tokens: Floats, devices: int, redundant: int = 0) -> Floats:
    """Return the rows of the device with the most of any numbers of tokens.

    Rows scatter around their mean, because some experts are more popular than others, in proportion to the tokens,
    and because each token chooses by chance, in proportion to the root of the tokens. Where a load balancer lays out
    ``redundant`` copies, what remains of the former is the load of the fullest device.
    """
    rows = tokens * (experts.per_token / devices)
    if not _unequal(experts, devices):
        return rows
    chosen = _chosen(experts)
    popular, by_chance = mean((chosen - mean(chosen)) ** 2), mean(chosen * (1.0 - chosen))
    if redundant:
        copies = copies_of(chosen, redundant)
        scatter = _draws(len(copies), devices) * mean(copies * (1.0 - copies)) * tokens
        balanced: Floats = tokens * fullest_load(copies, devices) + _largest_of(devices) * np.sqrt(scatter)
        return balanced
    by_chance *= row_ratio(experts, devices)
    scatter = _draws(experts.count, devices) * (popular * tokens**2 + by_chance * tokens)
    beside_the_first = (experts.count / devices - 1.0) * mean(chosen[1:])  # on its device
    most: Floats = np.maximum(
        rows + _largest_of(devices) * np.sqrt(scatter), tokens * (float(chosen[0]) + beside_the_first)
    )
    return most


def _unequal(experts: Experts, devices: int) -> bool:
    """Return whether several devices hold different experts."""
    return 1 < devices <= experts.count


def _draws(experts: int, devices: int) -> float:
    """Return the variance of the sum over a device's experts, drawn without replacement, by that of one draw."""
    held = experts / devices
    return held * (experts - held) / (experts - 1)


def _largest_of(devices: int) -> float:
    """Return the mean of the largest of so many normal deviations that add up to 0, in their standard deviation.

    Blom's approximation (Statistical Estimates and Transformed Beta-Variables, 1958), which is 1 % off for eight.
    """
    quantile = round(NormalDist().inv_cdf((devices - 0.375) / (devices + 0.25)), DIGITS)
    return quantile * math.sqrt(devices / (devices - 1))


def _chosen(experts: Experts) -> Floats:
    """Return the probability of each expert to be chosen by a token; they add up to the experts of a token.

    Where popular ones would be chosen more than once, every token chooses them, and the others have what is left.
    """
    popularity = power(np.arange(1, experts.count + 1), -experts.routing_skew)
    always, left = 0, experts.per_token
    while left and left * popularity[always] > total(popularity[always:]):
        always, left = always + 1, left - 1
    others = left * popularity[always:] / total(popularity[always:])
    chosen: Floats = np.concatenate((np.ones(always), others)) if always else others
    return chosen


def _drawn(chosen: Floats, tokens: Floats) -> Floats:
    """Return the sum over all experts of the probability that 0, 1, … tokens draw it."""
    few = tokens[: _certain(float(chosen.min()))]
    sums: Floats = np.full_like(tokens, float(len(chosen)))
    sums[: len(few)] = 0.0
    for probability in chosen.tolist():
        missed = np.full_like(few, 1.0 - probability)
        missed[0] = 1.0
        sums[: len(few)] += 1.0 - np.cumprod(missed, dtype=np.float64)
    return sums


def _certain(probability: float) -> int:
    """Return a number of tokens that miss an expert of this probability less often than a float can tell from 0."""
    if probability >= 1.0:
        return 2
    return 2 + math.ceil(-60.0 * math.log(2.0) / float(log1p(-probability)))
