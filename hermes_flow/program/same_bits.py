"""Sums and functions of floats that have the same bits with every Python, NumPy, processor and math library.

Python and NumPy may add floats in any order: Python 3.12 made ``sum`` more precise, and the order of ``ndarray.sum``
changed between NumPy 2.0 and 2.4. ``np.exp``, ``np.log`` and ``np.power`` have one implementation for each kind of
vector instructions, and those of ``math`` come from the library of the platform; all of them are close to the true
value, and differ in the last bit. Here arrays are only added, subtracted, multiplied and divided, in an order that is
written down, and IEEE 754 rounds each of these operations in one way.

Floats of Python are added by ``math.fsum``, which is exact.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Numbers: TypeAlias = NDArray[np.floating] | NDArray[np.integer] | NDArray[np.bool_]

# The coefficients of Sun's fdlibm (e_exp.c, e_log.c, 1993); its errors are below one unit of the last place.
_LN2_HIGH = 6.93147180369123816490e-01  # with 32 bits, so that its product with an exponent is exact
_LN2_LOW = 1.90821492927058770002e-10
_PER_LN2 = 1.44269504088896338700e00
_EXP = (
    1.66666666666666019037e-01,
    -2.77777777770155933842e-03,
    6.61375632143793436117e-05,
    -1.65339022054652515390e-06,
    4.13813679705723846039e-08,
)
_LOG = (
    6.666666666666735130e-01,
    3.999999999940941908e-01,
    2.857142874366239149e-01,
    2.222219843214978396e-01,
    1.818357216161805012e-01,
    1.531383769920937332e-01,
    1.479819860511658591e-01,
)
_ROOT_HALF = 0.70710678118654752440
_BEYOND = 1000.0  # exp of it overflows, and exp of its negative is 0
_PART = 8192  # values that are worked on at a time, as many as the caches hold
# Decimal places to which the few constants are rounded that need other functions of the math library (Γ, erf, the
# quantiles of the normal distribution). Libraries differ from the 15th place on.
DIGITS = 12


def total(values: Numbers) -> float:
    """Return the sum of an array, added one after the other from the first on; 0 without any."""
    return float(np.add.accumulate(values, dtype=np.float64)[-1]) if len(values) else 0.0


def known_total(values: Floats) -> float:
    """Return ``total`` of the values that are not NaN."""
    return total(values[~np.isnan(values)])


def mean(values: Numbers) -> float:
    """Return ``total`` over the number of values; at least one is expected."""
    return total(values) / len(values)


def exp(values: ArrayLike) -> Floats:
    """Return e to the power of each value, to within a unit of the last place; the values are not NaN."""
    return in_parts(_exp, np.asarray(values, dtype=np.float64))


def log(values: ArrayLike) -> Floats:
    """Return the natural logarithm of each value, to within a unit of the last place; all are above 0 and finite."""
    return in_parts(_log, np.asarray(values, dtype=np.float64))


def log1p(values: ArrayLike) -> Floats:
    """Return the logarithm of 1 + each value, to a few units of the last place; all are above -1 and finite.

    As W. Kahan does it: the logarithm of what 1 + x is rounded to, times x over what was added.
    """
    given = np.asarray(values, dtype=np.float64)
    whole = 1.0 + given
    added = whole - 1.0
    found: Floats = np.where(added == 0.0, given, log(whole) * given / np.where(added == 0.0, 1.0, added))
    return found


def power(base: ArrayLike, exponent: ArrayLike) -> Floats:
    """Return ``base`` to the power of ``exponent``, element by element; bases are 0 or more, and 0 to the 0 is 1.

    The relative error is about 2⁻⁵³ times the logarithm of the result.
    """
    below, above = np.asarray(base, dtype=np.float64), np.asarray(exponent, dtype=np.float64)
    nothing = below == 0.0
    if not nothing.any():
        return exp(above * log(below))
    of_zero = np.where(above == 0.0, 1.0, np.where(above > 0.0, 0.0, np.inf))
    found: Floats = np.where(nothing, of_zero, exp(above * log(np.where(nothing, 1.0, below))))
    return found


def whole_power(base: float, exponent: int) -> float:
    """Return ``base`` to the power of a whole number of 0 or more, by squares."""
    found = 1.0
    while exponent:
        if exponent & 1:
            found *= base
        base *= base
        exponent >>= 1
    return found


def in_parts(function: Callable[[Floats], Floats], values: Floats) -> Floats:
    """Return what an element-by-element ``function`` makes of ``values``, of so many at a time as the caches hold."""
    if values.size <= _PART:
        return function(values)
    flat, found = values.ravel(), np.empty(values.size)
    for first in range(0, values.size, _PART):
        found[first : first + _PART] = function(flat[first : first + _PART])
    return found.reshape(values.shape)


def _exp(values: Floats) -> Floats:
    given = np.clip(values, -_BEYOND, _BEYOND)
    exponent = np.rint(given * _PER_LN2)
    high, low = given - exponent * _LN2_HIGH, exponent * _LN2_LOW
    rest = high - low
    correction = rest - _polynomial(rest * rest, (0.0, *_EXP))
    fraction = 1.0 - ((low - rest * correction / (2.0 - correction)) - high)
    found: Floats = np.ldexp(fraction, exponent.astype(np.int32))
    return found


def _log(values: Floats) -> Floats:
    fraction, exponent = np.frexp(values)
    small = fraction < _ROOT_HALF
    above = np.where(small, 2.0 * fraction, fraction) - 1.0  # from √½ − 1 to √2 − 1
    twos = (exponent - small).astype(np.float64)
    ratio = above / (2.0 + above)
    half = 0.5 * above * above
    rest = ratio * (half + _polynomial(ratio * ratio, (0.0, *_LOG))) + twos * _LN2_LOW
    found: Floats = twos * _LN2_HIGH - ((half - rest) - above)
    return found


def _polynomial(at: Floats, coefficients: tuple[float, ...]) -> Floats:
    """Return Σ coefficients[n] · at**n by Horner's rule."""
    found = np.full_like(at, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        found = found * at + coefficient
    return found
