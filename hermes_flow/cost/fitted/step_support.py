"""Holds the slopes of a fitted step that only a few measured steps determine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hermes_flow.cost.fitted.least_squares import Floats, Pulls, least_relative
from hermes_flow.cost.triangular import product

_FEW = 10  # steps that a slope should rest on


def bounded(
    columns: Floats, sizes: Floats, names: Sequence[str], times: Floats, pulls: Pulls
) -> tuple[Floats, str]:
    """Return the weights of the columns with the least relative error, and which slopes few steps support ("": none).

    ``sizes`` has, by column, the size of each step that the slope is of. A slope that fewer than ten steps support is
    held at the mean time per unit of these steps, as if it took all of their time.
    """
    most = np.full(columns.shape[1], np.inf)
    counts = (columns > 0).sum(axis=0)
    for column, name in enumerate(names):
        rows = np.flatnonzero((columns[:, column] > 0) & (sizes[:, column] > 0))
        if name and 0 < len(rows) < _FEW:
            most[column] = float(np.median(times[rows] / sizes[rows, column]))
    weights, held = np.zeros(columns.shape[1]), np.zeros(columns.shape[1], dtype=np.bool_)
    while True:
        free = ~held
        explained = product(columns[:, held], weights[held])
        values = pulls.values - product(pulls.rows[:, held], weights[held])
        weights[free] = least_relative(
            columns[:, free], times, Pulls(pulls.rows[:, free], values), np.minimum(explained, 0.95 * times)
        )
        beyond = free & (weights > most * (1.0 + 1e-9))
        if not beyond.any():
            break
        weights[beyond] = most[beyond]
        held |= beyond
    told = [
        f"{name} ({counts[column]} step{'s' if counts[column] > 1 else ''}{', held' if held[column] else ''})"
        for column, name in enumerate(names)
        if np.isfinite(most[column]) and weights[column] > 0
    ]
    return weights, "; ".join(told)
