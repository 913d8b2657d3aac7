"""Least squares by Householder reflections, with the same bits on every machine (BLAS has other kernels on each)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from hermes_flow.program.same_bits import total

Floats = NDArray[np.float64]

_DEPENDENT = 1e-10  # of a column's length: less of it beyond the columns before means that it depends on them


def triangular(matrix: Floats, target: Floats) -> tuple[Floats, Floats]:
    """Return (R, t) so that |R · x − t| is least where |matrix · x − target| is; R is square and upper triangular.

    Golub and Van Loan, Matrix Computations, 4th edition, section 5.2. With fewer rows than columns, rows of zeros are
    added.
    """
    columns = matrix.shape[1]
    work = np.zeros((max(len(matrix), columns), columns + 1))
    work[: len(matrix), :columns], work[: len(matrix), columns] = matrix, target
    for place in range(min(columns, len(work) - 1)):
        below = work[place:, place].copy()
        length = math.sqrt(total(below * below))
        if not length:
            continue
        diagonal = -math.copysign(length, float(below[0]))
        below[0] -= diagonal
        rest = work[place:, place:]
        products = np.add.accumulate(below[:, None] * rest, axis=0)[-1]
        rest -= below[:, None] * (products * (2.0 / total(below * below)))
        work[place, place], work[place + 1 :, place] = diagonal, 0.0
    return work[:columns, :columns], work[:columns, columns]


def product(matrix: Floats, vector: Floats) -> Floats:
    """Return matrix · vector, each row added from the first column to the last."""
    if not matrix.shape[1]:
        return np.zeros(len(matrix))
    found: Floats = np.add.accumulate(matrix * vector, axis=1)[:, -1]
    return found


def least_squares(matrix: Floats, target: Floats) -> Floats | None:
    """Return x with the least |matrix · x − target|; None where a column depends on those before it."""
    reduced, right = triangular(matrix, target)
    lengths = np.sqrt(np.add.accumulate(reduced * reduced, axis=0)[-1])
    if (np.abs(np.diagonal(reduced)) <= _DEPENDENT * lengths).any():
        return None
    found = np.zeros(len(right))
    for place in range(len(right) - 1, -1, -1):
        known = total(reduced[place, place + 1 :] * found[place + 1 :])
        found[place] = (right[place] - known) / reduced[place, place]
    return found
