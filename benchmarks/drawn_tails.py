"""Says how far the p99 of TTFT of measured runs is off, and how much of that the draws of their arrivals explain."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hermes_flow.validation.compare import Compared
from hermes_flow.validation.description import SIMULATOR

TAIL = ("ttft", "p99")
_NARROW = 0.1


class Tails:
    """The p99 of TTFT of some runs.

    ``sizes`` are the absolute errors in percent of all of them, and ``known`` those of runs whose arrivals are known.
    The arrivals of the ``drawn`` other runs are drawn several times. In ``sure`` of these the draws differ by less
    than a tenth of their median, and in ``within`` the measured value lies in the range of the draws.
    """

    def __init__(self, runs: Sequence[Compared]) -> None:
        self.sizes: list[float] = []
        self.known: list[float] = []
        self.drawn = self.sure = self.within = 0
        for run in runs:
            (row,) = (
                row for row in run.rows if (row.metric, row.statistic) == TAIL and row.simulator == SIMULATOR
            )
            self.sizes.append(abs(row.error_percent))
            if row.requests is not None:
                self.known.append(self.sizes[-1])
                continue
            draws = [sample.figure(*TAIL) for sample in run.replayed.samples]
            values = np.array([value for value in draws if value is not None])
            self.drawn += 1
            self.sure += int(np.ptp(values) < _NARROW * np.median(values))
            assert row.measured is not None
            self.within += int(values.min() <= row.measured <= values.max())
