"""The mean and the percentiles that the summary gives of a latency."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hermes_flow.program.same_bits import mean

PERCENTILES = (50, 90, 99)
STATISTICS = ("mean", "p50", "p90", "p99")


def statistics(values: NDArray[np.float64]) -> dict[str, float | None]:
    """Return mean and percentiles of the values, None without any; percentiles interpolate linearly."""
    if not len(values):
        return dict.fromkeys(STATISTICS)
    # Several percentiles of sorted values are found faster, sorting included; the figures are the same.
    figures = [mean(values), *np.percentile(np.sort(values), PERCENTILES, overwrite_input=True)]
    return {name: float(value) for name, value in zip(STATISTICS, figures, strict=True)}
