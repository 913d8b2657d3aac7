"""Computes how many steps of a decode run have begun; each step takes a little longer than the last."""

from __future__ import annotations

from math import sqrt

from mypy_extensions import i64


def steps_begun(gone_ps: int, first_ps: int, growth_ps: int) -> int:
    """Return how many steps of an endless run begin before ``gone_ps`` after its start.

    Step k, from 0, takes ``first_ps + k·growth_ps``, above 0; the result is exact. None begins before 0.
    """
    if gone_ps <= 0:
        return 0
    half = 0.5 * growth_ps
    linear = first_ps - half
    steps: i64 = int(2.0 * gone_ps / (linear + sqrt(linear * linear + 4.0 * half * gone_ps)))
    # The root is a float: step to the integer that is exactly right.
    end: i64 = steps * first_ps + growth_ps * (steps * (steps - 1) // 2)
    while end >= gone_ps and steps:
        steps -= 1
        end -= first_ps + growth_ps * steps
    while end < gone_ps:
        end += first_ps + growth_ps * steps
        steps += 1
    return steps
