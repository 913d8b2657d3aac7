"""Pareto fronts: the designs that no other design beats in every figure of a choice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hermes_flow.errors import HermesFlowError
from hermes_flow.metrics.figures import Better


def pareto_front(values: Sequence[Sequence[float | None]], better: Sequence[Better]) -> NDArray[np.bool_]:
    """Return which rows are on the front; ``values`` has a row per design and a column per figure.

    A row is on the front if no other row is at least as good in every figure and better in one. A row with an unknown
    figure is never on it. Raises HermesFlowError if a row and ``better`` have unlike lengths.
    """
    if any(len(row) != len(better) for row in values):
        raise HermesFlowError(
            f"a Pareto front over {len(better)} figures needs as many values for every design"
        )
    signs = np.array([1.0 if direction == "low" else -1.0 for direction in better])
    table = np.array([[np.nan if value is None else value for value in row] for row in values], dtype=float)
    table = table.reshape(len(values), len(better)) * signs
    known = ~np.isnan(table).any(axis=1)
    front = np.zeros(len(values), dtype=bool)
    for index in np.flatnonzero(known):
        no_worse = (table[known] <= table[index]).all(axis=1)
        better_somewhere = (table[known] < table[index]).any(axis=1)
        front[index] = not (no_worse & better_somewhere).any()
    return front
