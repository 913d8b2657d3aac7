"""Turns NumPy columns into Polars series, in which null stands for what there is none of."""

from __future__ import annotations

from collections.abc import Sequence
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

    known = pl.Series([*among, None], dtype=pl.String)
    return known.gather(np.where(index < 0, len(among), index).astype(np.uint32))


def summed(columns: Sequence[Ints | None], count: int) -> pl.Series:
    """Return the row sums of the columns there are, -1 counting as nothing; null without any column."""
    given = [np.maximum(column, 0) for column in columns if column is not None]
    return integers(np.sum(given, axis=0, dtype=np.int64) if given else None, count)


def integers(values: Ints | None, count: int) -> pl.Series:
    """Return the values, null where they are negative or absent."""
    import polars as pl

    if values is None:
        return pl.repeat(None, count, dtype=pl.Int64, eager=True)
    series = pl.Series(values, dtype=pl.Int64)
    if (values < 0).any():
        series = series.set(pl.Series(values < 0), None)
    return series


def floats(values: Floats) -> pl.Series:
    """Return the values, null where they are NaN."""
    import polars as pl

    return pl.Series(values, nan_to_null=True)
