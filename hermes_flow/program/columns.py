"""Columns of integers that are written one entry at a time while a simulation runs."""

from __future__ import annotations

from array import array
from collections.abc import MutableSequence
from typing import TypeAlias

import numpy as np

from hermes_flow.program.units import Ints

Column: TypeAlias = MutableSequence[int]


def column(count: int, value: int = -1) -> Column:
    """Return ``count`` entries of ``value``.

    An entry takes 8 bytes, that of a list four times as much, and the entries of a long run are freed at once.
    """
    return array("q", [value]) * count


def rows(of: Column, first: int, count: int) -> Ints:
    """Return a copy of ``count`` entries from ``first`` on, as an array of int64."""
    return np.array(of[first : first + count], dtype=np.int64)


def fill(of: Column, first: int, values: Ints) -> None:
    """Write ``values`` into the column from ``first`` on."""
    of[first : first + len(values)] = array("q", values.astype(np.int64).tobytes())
