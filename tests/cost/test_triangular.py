"""Least squares by reflections find what NumPy finds, and say where the weights are open."""

from __future__ import annotations

import numpy as np
import pytest

from hermes_flow.cost.fitted.least_squares import nonnegative
from hermes_flow.cost.triangular import least_squares, product, triangular

RNG = np.random.default_rng(3)


@pytest.mark.parametrize(("rows", "columns"), [(40, 5), (6, 6), (1, 1), (300, 12)])
def test_the_weights_are_those_of_numpy(rows: int, columns: int) -> None:
    matrix, target = RNG.random((rows, columns)), RNG.random(rows)
    found = least_squares(matrix, target)
    assert found == pytest.approx(np.linalg.lstsq(matrix, target, rcond=None)[0], rel=1e-9)


def test_the_triangle_has_the_same_residuals_up_to_a_constant() -> None:
    matrix, target = RNG.random((30, 4)), RNG.random(30)
    reduced, right = triangular(matrix, target)
    assert np.array_equal(reduced, np.triu(reduced))
    first, other = RNG.random(4), RNG.random(4)
    whole, small = (
        [float(np.square(rows @ weights - wanted).sum()) for weights in (first, other)]
        for rows, wanted in ((matrix, target), (reduced, right))
    )
    assert whole[0] - whole[1] == pytest.approx(small[0] - small[1], rel=1e-9)


def test_dependent_columns_and_too_few_rows_have_no_single_answer() -> None:
    column = RNG.random(20)
    assert least_squares(np.stack([column, 2 * column], axis=1), RNG.random(20)) is None
    assert least_squares(np.ones((1, 2)), np.ones(1)) is None
    assert least_squares(np.zeros((5, 1)), np.ones(5)) is None


def test_weights_below_zero_become_zero_and_the_others_fit_best_without_them() -> None:
    matrix = RNG.random((50, 3))
    target = product(matrix, np.array([2.0, -1.0, 3.0]))
    found = nonnegative(matrix, target)
    assert found[1] == 0.0
    assert found[[0, 2]] == pytest.approx(np.linalg.lstsq(matrix[:, [0, 2]], target, rcond=None)[0], rel=1e-9)
    assert nonnegative(matrix, -np.abs(target)).tolist() == [0.0, 0.0, 0.0]


def test_products_of_no_columns_are_zero() -> None:
    assert product(np.zeros((3, 0)), np.zeros(0)).tolist() == [0.0, 0.0, 0.0]
    assert product(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([1.0, 10.0])).tolist() == [21.0, 43.0]
