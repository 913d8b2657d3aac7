"""Computes core time that is linear in tokens, in whole nanoseconds."""

from __future__ import annotations

import numpy as np

from hermes_flow.program.units import NS_PER_US, Ints


def linear_ns(fixed_us: float, per_token_us: float, tokens: Ints) -> Ints:
    """Return fixed_us + per_token_us·tokens in nanoseconds; raises ConfigError on a negative figure."""
    nanoseconds: Ints = np.rint((fixed_us + per_token_us * tokens) * NS_PER_US).astype(np.int64)
    return nanoseconds
