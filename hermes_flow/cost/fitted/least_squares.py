"""Weights that are never negative, with the least relative error: what every fit here is made by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_ROUNDS = 4  # of reweighting; the weights have settled by then
_SMALL = 0.02  # errors below this count by their squares, above by their size
_DONE = 1e-10


@dataclass(frozen=True, slots=True)
class Pulls:
    """What the weights are drawn to where measurements leave them open: rows · weights near ``values``."""

    rows: Floats
    values: Floats

    @classmethod
    def none(cls, columns: int) -> Pulls:
        """Return no pulls on so many weights."""
        return cls(np.zeros((0, columns)), np.zeros(0))


def least_relative(columns: Floats, times: Floats, pulls: Pulls) -> Floats:
    """Return weights ≥ 0 of the columns (one row per measurement) with the least mean size of relative errors.

    By reweighted least squares (Huber's loss): errors beyond 2 % count by their size, so that a few measurements gone
    wrong do not bend the rest.
    """
    scale = np.abs(columns).max(axis=0, initial=0.0)
    scale[scale == 0.0] = 1.0
    relative = columns / scale / times[:, None]
    pulled = pulls.rows / scale
    trust = np.ones(len(times))
    found = np.zeros(columns.shape[1])
    for _ in range(1 + _ROUNDS):
        found = nonnegative(
            np.vstack([relative * trust[:, None], pulled]), np.concatenate([trust, pulls.values])
        )
        trust = np.sqrt(_SMALL / np.maximum(np.abs(relative @ found - 1.0), _SMALL))
    weights: Floats = found / scale
    return weights


def nonnegative(matrix: Floats, target: Floats) -> Floats:
    """Return x ≥ 0 with the least |matrix · x − target|² (Lawson and Hanson 1974, chapter 23)."""
    reduced = np.asarray(np.linalg.qr(np.column_stack([matrix, target]), mode="r"))
    matrix, target = reduced[:, :-1], reduced[:, -1]
    count = matrix.shape[1]
    found = np.zeros(count)
    free = np.zeros(count, dtype=np.bool_)
    gain = matrix.T @ target
    least = _DONE * max(1e-300, float(np.abs(gain).max(initial=0.0)))
    for _ in range(10 * count):
        if free.all() or gain[~free].max() <= least:
            break
        free[np.flatnonzero(~free)[np.argmax(gain[~free])]] = True
        while True:
            trial = np.zeros(count)
            trial[free] = np.linalg.lstsq(matrix[:, free], target, rcond=None)[0]
            sinking = free & (trial <= 0.0)
            if not sinking.any():
                break
            step = float((found[sinking] / (found[sinking] - trial[sinking])).min())
            found = found + step * (trial - found)
            free &= found > _DONE * max(1e-300, float(found.max()))
            found[~free] = 0.0
        found = trial
        gain = matrix.T @ (target - matrix @ found)
    return found
