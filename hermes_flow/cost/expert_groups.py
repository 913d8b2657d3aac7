"""Routing in groups: a token's experts come from some groups of experts only, as in DeepSeek-V2 and V3.

A router ranks groups by their best expert (``group_limited_greedy`` of DeepSeek-V2), takes as many as
``groups_per_token``, and then the best experts in them (modeling_deepseek.py of deepseek-ai/DeepSeek-V2). DeepSeek-V3
ranks groups by the sum of their best two, which gives nearly the same: the variance of what a token chooses on a
device is 3 % smaller, by draws of scores. Here scores are alike everywhere: which expert is best is left to chance.

Groups lie one after another on devices, as engines place experts that have no copies. A token's experts are then on
fewer devices, and those of a device are chosen together more often. How often each is chosen is the same.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from hermes_flow.config.model import Experts
from hermes_flow.cost.operators import Floats
from hermes_flow.program.same_bits import mean, power, total, whole_power


def limited(experts: Experts) -> bool:
    """Return whether a token's experts come from some of several groups only."""
    return experts.groups_per_token < experts.groups


def row_ratio(experts: Experts, devices: int) -> float:
    """Return the variance of how many experts of a device a token chooses, by that without groups."""
    if not limited(experts):
        return 1.0
    held, single = experts.count / devices, experts.per_token / experts.count
    beside, others = _pairs(experts, devices)
    same, other, _ = _walk(experts.count, experts.per_token, experts.groups, experts.groups_per_token)
    variance = held * single + beside * same + others * other - (held * single) ** 2
    free = held * single * (1.0 - single) * (experts.count - held) / (experts.count - 1)
    return variance / free


def distinct_ratio(experts: Experts, tokens: Floats, devices: int) -> Floats | float:
    """Return the variance of a device's distinct experts of so many tokens, by that without groups.

    Of each it is the deviation from the mean over devices that counts. Two experts that a token chooses together with
    probability p, and each with q, are both missed by t tokens with probability (1 − 2q + p)^t.
    """
    if not limited(experts):
        return 1.0
    held, single = experts.count / devices, experts.per_token / experts.count
    beside, others = _pairs(experts, devices)
    same, other, _ = _walk(experts.count, experts.per_token, experts.groups, experts.groups_per_token)
    size = experts.count / experts.groups
    missed = power(1.0 - single, tokens)
    of_same = power(max(0.0, 1.0 - 2.0 * single + same), tokens) - missed**2
    of_other = power(max(0.0, 1.0 - 2.0 * single + other), tokens) - missed**2
    own = missed * (1.0 - missed)
    # the sum over all devices scatters as well, and is shared by them
    variance = (
        held * (1.0 - 1.0 / devices) * own
        + (beside - held / devices * (size - 1.0)) * of_same
        + (others - held / devices * (experts.count - size)) * of_other
    )
    free = held * (1.0 - 1.0 / devices) * own * experts.count / (experts.count - 1)
    few = own > 1e-9  # beyond, all experts are drawn
    ratio: Floats = np.maximum(0.0, np.where(few, variance, 1.0) / np.where(few, free, 1.0))
    return ratio


def devices_reached(experts: Experts, devices: int) -> float:
    """Return on how many devices a token's experts lie, on average.

    Where a group fills several devices, those of its experts beside the first lie on any device of the groups.
    """
    groups, chosen = experts.groups, experts.per_token
    _, _, hit = _walk(experts.count, chosen, groups, experts.groups_per_token)
    reached = 0.0
    for number, share in enumerate(hit):
        if not number:
            continue
        if devices < groups:
            missed = 1.0
            for place in range(number):
                missed *= max(0.0, groups - groups / devices - place) / (groups - place)
            reached += share * devices * (1.0 - missed)
        else:
            each = devices / groups
            missed = (1.0 - 1.0 / each) * whole_power(1.0 - 1.0 / (number * each), chosen - number)
            reached += share * number * each * (1.0 - missed)
    return reached


def _pairs(experts: Experts, devices: int) -> tuple[float, float]:
    """Return how many ordered pairs of a device's experts are of one group and of two, on average over devices."""
    place = np.arange(experts.count)
    device, group = place * devices // experts.count, place // (experts.count // experts.groups)
    each = np.bincount(device * experts.groups + group, minlength=devices * experts.groups)
    each = each.reshape(devices, experts.groups).astype(np.float64)
    squares = mean((each**2).ravel()) * experts.groups
    held = experts.count / devices
    every = mean(each.sum(axis=1) ** 2)
    return squares - held, every - squares


@lru_cache(maxsize=64)
def _walk(count: int, chosen: int, groups: int, most: int) -> tuple[float, float, tuple[float, ...]]:
    """Return the probability that a token chooses two given experts of one group, that it does so with two of
    different groups, and that its experts are of 0, 1, … groups.

    Experts come by their rank. The first of a new group opens it while fewer than ``most`` are open; what comes of
    other groups later is passed over. By the number of open groups, it follows the probability and the mean sum of
    squares of how many each group has given.
    """
    size = count // groups
    probability, squares = [1.0] + [0.0] * most, [0.0] * (most + 1)
    for taken in range(chosen):
        after, later = [0.0] * (most + 1), [0.0] * (most + 1)
        for opened in range(most + 1):
            share, square = probability[opened], squares[opened]
            if not share:
                continue
            left = opened * size - taken
            new = 0.0 if opened == most else (groups - opened) * size / (count - taken)
            if new:
                after[opened + 1] += share * new
                later[opened + 1] += (square + share) * new
            if left:
                more = share + 2.0 * (size * taken * share - square) / left
                after[opened] += share * (1.0 - new)
                later[opened] += (square + more) * (1.0 - new)
        probability, squares = after, later
    together = total(np.array(squares)) - chosen
    same = together / (count * (size - 1)) if size > 1 else 0.0
    other = (chosen * (chosen - 1) - together) / (count * (count - size))
    return same, other, tuple(probability)
