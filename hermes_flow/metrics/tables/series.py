"""Turns NumPy columns into Polars series, in which null stands for what there is none of.

A long table is made of pieces, and columns of it often hold nothing but zeros or nulls, such as times on a network
that is not there. All pieces of such columns are one series.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hermes_flow.program.units import Ints

if TYPE_CHECKING:
    import polars as pl

Floats = NDArray[np.float64]


def names(among: Sequence[str], index: NDArray[np.integer]) -> pl.Series:
    """Return ``among[index]``, null where the index is -1."""
    import polars as pl

    if len(index) and index[0] >= 0 and (index == index[0]).all():
        return in_turn((among[index[0]],), len(index))
    known = pl.Series([*among, None], dtype=pl.String)
    if len(index) and index.min() < 0:
        index = np.where(index < 0, len(among), index)
    # On this thread alone: gather() shares the work with others and takes three times the CPU time.
    return known[pl.Series(index.astype(np.uint32))]


@lru_cache(maxsize=8)
def in_turn(among: tuple[str, ...], count: int) -> pl.Series:
    """Return the names one after the other, all of them ``count`` times."""
    import polars as pl

    return pl.Series(among, dtype=pl.String)[_turns(len(among), count)]


@lru_cache(maxsize=2)
def _turns(width: int, count: int) -> pl.Series:
    """Return the numbers below ``width`` one after the other, all of them ``count`` times."""
    import polars as pl

    return pl.Series(np.tile(np.arange(width, dtype=np.uint32), count))


def summed(columns: Sequence[Ints | None], count: int) -> pl.Series:
    """Return the row sums of the columns there are, -1 counting as nothing; null without any column."""
    given = [np.maximum(column, 0) for column in columns if column is not None]
    return integers(np.sum(given, axis=0, dtype=np.int64) if given else None, count)


def integers(values: Ints | None, count: int) -> pl.Series:
    """Return the values, null where they are negative or absent."""
    import polars as pl

    if values is None:
        return _all(None, count)
    if not values.any():
        return _all(0, len(values))
    series = pl.Series(values, dtype=pl.Int64)
    if (values < 0).any():
        series = series.set(pl.Series(values < 0), None)
    return series


def floats(values: Floats) -> pl.Series:
    """Return the values, null where they are NaN."""
    import polars as pl

    if not values.any() and not np.signbit(values).any():
        return _all(0.0, len(values))
    return pl.Series(values, nan_to_null=True)


@lru_cache(maxsize=8, typed=True)
def _all(value: float | None, count: int) -> pl.Series:
    """Return ``count`` times the same value: of integers, or of floats where it is one."""
    import polars as pl

    return pl.repeat(value, count, dtype=pl.Float64 if isinstance(value, float) else pl.Int64, eager=True)
