"""SGLang's controller of data-parallel ranks, which gives them requests in turns or by the shortest queue."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import pairwise

from hermes_flow.program.units import PS_PER_MS

# source: SGLang 0.5, load_watch_interval of its server arguments
REPORT_PS = round(100 * PS_PER_MS)


class RankBudget:
    """The ranks of the next requests; once they are used up, all ranks have their turn again.

    source: DPBudget of sglang/srt/managers/data_parallel_controller.py
    """

    def __init__(self, ranks: int) -> None:
        self._ranks = ranks
        self._next: deque[int] = deque()

    def report(self, counts: Sequence[int]) -> None:
        """Learn how many requests each rank has: those with the fewest get the next ones, until all are level."""
        self._next.clear()
        levels = sorted(set(counts))
        for level, above in pairwise(levels):
            lowest = [rank for rank, count in enumerate(counts) if count <= level]
            self._next.extend(lowest * (above - level))

    def choose(self) -> int:
        """Return the rank of the next request."""
        if not self._next:
            self._next.extend(range(self._ranks))
        return self._next.popleft()
