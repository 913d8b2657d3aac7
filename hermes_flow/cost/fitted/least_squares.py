"""Fits nonnegative weights with the least relative error; every fit of step times uses it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hermes_flow.cost.triangular import least_squares, product, triangular
from hermes_flow.errors import HermesFlowError

Floats = NDArray[np.float64]

_ROUNDS = 4  # of reweighting; the weights have settled by then
_SMALL = 0.02  # errors below this count by their squares, above by their size
_MOST_TURNS = 10  # of NNLS, for each weight


@dataclass(frozen=True, slots=True)
class Pulls:
    """Preferred values of weights that the measurements do not determine: rows · weights near ``values``."""

    rows: Floats
    values: Floats

    @classmethod
    def none(cls, columns: int) -> Pulls:
        """Return no pulls on so many weights."""
        return cls(np.zeros((0, columns)), np.zeros(0))


def least_relative(columns: Floats, times: Floats, pulls: Pulls, explained: Floats | float = 0.0) -> Floats:
    """Return weights ≥ 0 of the columns (one row per measurement) with the least mean size of relative errors.

    ``explained`` is the part of each time that other weights account for.
    By reweighted least squares (Huber's loss): errors beyond 2 % count by their size, so that a few measurements gone
    wrong do not bend the rest.
    """
    scale = np.abs(columns).max(axis=0, initial=0.0)
    scale[scale == 0.0] = 1.0
    relative = columns / scale / times[:, None]
    pulled = pulls.rows / scale
    target = 1.0 - explained / times
    trust = np.ones(len(times))
    found = np.zeros(columns.shape[1])
    for _ in range(1 + _ROUNDS):
        found = nonnegative(
            np.vstack([relative * trust[:, None], pulled]), np.concatenate([target * trust, pulls.values])
        )
        trust = np.sqrt(_SMALL / np.maximum(np.abs(product(relative, found) - target), _SMALL))
    weights: Floats = found / scale
    return weights


def nonnegative(matrix: Floats, target: Floats) -> Floats:
    """Return x ≥ 0 with the least |matrix · x − target|² (SciPy's NNLS: Lawson and Hanson 1974, chapter 23).

    Raises HermesFlowError if SciPy is not installed.
    """
    try:
        from scipy.optimize import nnls
    except ImportError:
        raise HermesFlowError(
            "fitting measurements needs SciPy; install it with: pip install 'hermes-flow[calibrate]'"
        ) from None
    # The triangular factor has the same solution, with as many rows as columns.
    reduced, right = triangular(matrix, target)
    found: Floats = nnls(reduced, right, maxiter=_MOST_TURNS * matrix.shape[1])[0]
    above = found > 0.0
    # SciPy finds which weights are 0; the last bits of the others depend on its BLAS, so they are solved for again.
    again = least_squares(reduced[:, above], right) if above.any() else None
    if again is not None and (again > 0.0).all():
        found[above] = again
    return found
