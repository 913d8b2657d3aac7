"""SGLang's controller of data-parallel ranks: it gives them requests in turns, by the shortest queue, or by room."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

from hermes_flow.program.units import PS_PER_MS

# source: SGLang 0.5, load_watch_interval of its server arguments
REPORT_PS = round(100 * PS_PER_MS)
_BITS = (1 << 64) - 1


class RankTurns(Protocol):
    """A rule of the controller."""

    def report(self, counts: Sequence[int]) -> None:
        """Learn how many requests each rank has."""

    def choose(self, task: int) -> int:
        """Return the rank of the next request."""


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

    def choose(self, task: int) -> int:
        """Return the rank of the next request, whichever it is."""
        if not self._next:
            self._next.extend(range(self._ranks))
        return self._next.popleft()


class Rooms:
    """The rank of a prompt whose KV leaves is its room modulo the ranks; the router draws a room for each request.

    source: follow_bootstrap_room of sglang/srt/managers/data_parallel_controller.py, and _generate_bootstrap_room of
    SGLang's router, which draws 63 random bits
    """

    def __init__(self, ranks: int, seed: int) -> None:
        self._ranks = ranks
        self._seed = seed

    def report(self, counts: Sequence[int]) -> None:
        """Do nothing: no counts are read."""

    def choose(self, task: int) -> int:
        """Return the rank of a request, which is the same whenever it comes."""
        return room(self._seed, task) % self._ranks


def room(seed: int, task: int) -> int:
    """Return 63 random bits of a task: SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) after a seed of its own."""
    return _mixed(_mixed(seed) ^ task) >> 1


def _mixed(value: int) -> int:
    value = (value + 0x9E3779B97F4A7C15) & _BITS
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _BITS
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _BITS
    return value ^ (value >> 31)
