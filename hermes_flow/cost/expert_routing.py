"""Counts the experts of a mixture that a number of tokens choose."""

from __future__ import annotations

import math

import numpy as np

from hermes_flow.config.schema import Experts
from hermes_flow.cost.operators import Floats


def distinct_experts(experts: Experts, skew: float, tokens: Floats) -> Floats:
    """Return how many distinct experts 0, 1, … tokens draw on average."""
    if not skew:
        missed = np.full_like(tokens, 1.0 - experts.per_token / experts.count)
        missed[0] = 1.0
        uniform: Floats = experts.count * (1.0 - np.cumprod(missed, dtype=np.float64))
        return uniform
    popularity = np.arange(1, experts.count + 1, dtype=np.float64) ** -skew
    chosen = np.minimum(1.0, experts.per_token * popularity / popularity.sum())
    few = tokens[: _certain(float(chosen.min()))]
    distinct: Floats = np.full_like(tokens, float(experts.count))
    distinct[: len(few)] = 0.0
    for probability in chosen.tolist():
        missed = np.full_like(few, 1.0 - probability)
        missed[0] = 1.0
        distinct[: len(few)] += 1.0 - np.cumprod(missed, dtype=np.float64)
    return distinct


def _certain(probability: float) -> int:
    """Return a number of tokens that miss an expert of this probability less often than a float can tell from 0."""
    if probability >= 1.0:
        return 2
    return 2 + math.ceil(-60.0 * math.log(2.0) / math.log1p(-probability))
