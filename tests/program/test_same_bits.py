"""The functions of ``same_bits`` are close to the true ones, and have the bits that are written here."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from hermes_flow.program.same_bits import exp, log, log1p, mean, power, total, whole_power

VALUES = np.random.default_rng(7).uniform(0.0, 1.0, 20_000)


def units_off(found: NDArray[np.float64], wanted: list[float]) -> float:
    """Return the largest error in units of the last place."""
    true = np.array(wanted)
    return float(np.max(np.abs(found - true) / np.spacing(np.abs(true))))


@pytest.mark.parametrize(
    ("function", "true", "values", "units"),
    [
        (exp, math.exp, 1400.0 * (VALUES - 0.5), 1.0),
        (exp, math.exp, 1e-6 * VALUES, 1.0),
        (log, math.log, 1e9 * VALUES, 1.0),
        (log, math.log, 1.0 + 1e-7 * VALUES, 1.0),
        (log1p, math.log1p, 5.0 * VALUES - 0.9, 3.0),
        (log1p, math.log1p, 1e-12 * VALUES, 3.0),
    ],
)
def test_functions_are_within_units_of_the_last_place(
    function: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    true: Callable[[float], float],
    values: NDArray[np.float64],
    units: float,
) -> None:
    assert units_off(function(values), [true(value) for value in values.tolist()]) <= units


def test_powers_are_within_the_error_that_their_logarithm_allows() -> None:
    bases, exponents = 0.01 + 100 * VALUES, 6.0 * (VALUES[::-1] - 0.5)
    wanted = [base**exponent for base, exponent in zip(bases.tolist(), exponents.tolist(), strict=True)]
    assert np.allclose(power(bases, exponents), wanted, rtol=1e-14, atol=0.0)


def test_ends_and_zeros_have_their_limits() -> None:
    assert exp([0.0, -800.0]).tolist() == [1.0, 0.0]
    assert log([1.0, 0.5, 2.0]).tolist() == [0.0, -math.log(2), math.log(2)]
    assert power(0.0, [0.0, 1.0, 2.5]).tolist() == [1.0, 0.0, 0.0]
    assert power([1.0, 3.0], [7.5, 0.0]).tolist() == [1.0, 1.0]
    assert log1p([0.0, 1e-300]).tolist() == [0.0, 1e-300]


BITS = {
    "exp": ["0x1.cf46d99d52b3ap-1", "0x1.78b56362cef38p-2", "0x1.13461675400c2p-4", "0x1.9fb17cb1cd6bdp-46"],
    "log": ["-0x1.26bb1bbb55515p+1", "0x0.0p+0", "0x1.fc8b7f138bdeap-1", "0x1.b9310043d4a1fp+1"],
    "power": ["0x1.40c28430012e6p+2", "0x1.0000000000000p+0", "0x1.fee93c93ffe2ep-2", "0x1.6ede11efe6e48p-4"],
    "log1p": ["0x1.8663f793c46c7p-4", "0x1.62e42fefa39efp-1", "0x1.4eeee650ae550p+0", "0x1.bd344b921cdf7p+1"],
}


def test_the_bits_are_those_of_every_other_machine() -> None:
    values = np.array([0.1, 1.0, 2.7, 31.4])
    found = {"exp": exp(-values), "log": log(values), "power": power(values, -0.7), "log1p": log1p(values)}
    assert {name: [each.hex() for each in row.tolist()] for name, row in found.items()} == BITS


def test_long_arrays_have_the_bits_of_short_ones() -> None:
    rows = VALUES.reshape(2, -1)
    assert exp(rows).tolist() == [[float(exp(value)) for value in row] for row in rows.tolist()]


def test_sums_go_from_the_first_to_the_last() -> None:
    added = 0.0
    for value in VALUES.tolist():
        added += value
    assert total(VALUES) == added
    assert total(VALUES) != VALUES.sum()  # which adds in pairs
    assert mean(VALUES) == added / len(VALUES)
    assert total(VALUES[:0]) == 0.0
    assert total(np.array([3, 4])) == 7.0


@pytest.mark.parametrize(("base", "exponent"), [(2.0, 10), (1.5, 3), (0.9, 0), (0.0, 0), (0.0, 3), (1.1, 64)])
def test_whole_powers_are_those_of_python(base: float, exponent: int) -> None:
    assert whole_power(base, exponent) == pytest.approx(base**exponent, rel=1e-14)
