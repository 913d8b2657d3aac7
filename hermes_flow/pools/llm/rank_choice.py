"""The front end of an engine with data-parallel attention: it gives each request to one of the ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from hermes_flow.program.units import NEVER, PS_PER_MS

# source: vllm/v1/engine/coordinator.py, min_stats_update_interval_ms; the front end learns the counts this often
REPORT_PS = round(100 * PS_PER_MS)
# source: vllm/v1/engine/core_client.py, DPLBAsyncMPClient.get_core_engine_for_request: score = waiting * 4 + running
_WAITING_WEIGHT = 4


class CountedRank(Protocol):
    """The interface of a rank to the front end."""

    def counts(self, at_ps: int) -> tuple[int, int]:
        """Return how many sequences wait and how many run, by all that happened before ``at_ps``."""


class RankChoice(Protocol):
    """A rule of the front end."""

    @property
    def report_ps(self) -> int:
        """When it next learns how many sequences the ranks have."""

    def report(self, now_ps: int) -> None:
        """Take the counts of the last report at or before ``now_ps``; all that happened before it is known."""

    def choose(self) -> int:
        """Return the rank of the next request."""


class LeastRequests:
    """vLLM's internal balancing: the rank with the least 4 × waiting + running requests, the first of equal ones.

    The counts are reported every 100 ms. Until the next report, each request that a rank is given counts as waiting.
    """

    def __init__(self, ranks: Sequence[CountedRank]) -> None:
        self._ranks = ranks
        self._scores = [0] * len(ranks)
        self.report_ps = REPORT_PS

    def report(self, now_ps: int) -> None:
        """Take the counts of the last report at or before ``now_ps``; all that happened before it is known."""
        at_ps = now_ps // REPORT_PS * REPORT_PS
        self.report_ps = at_ps + REPORT_PS
        for place, rank in enumerate(self._ranks):
            waiting, running = rank.counts(at_ps)
            self._scores[place] = _WAITING_WEIGHT * waiting + running

    def choose(self) -> int:
        """Return the rank of the next request."""
        scores = self._scores
        rank = scores.index(min(scores))
        scores[rank] += _WAITING_WEIGHT
        return rank


class RoundRobin:
    """The ranks take requests in turns, whatever they have in hand."""

    report_ps: int = NEVER

    def __init__(self, ranks: Sequence[CountedRank]) -> None:
        self._count = len(ranks)
        self._next = 0

    def report(self, now_ps: int) -> None:
        """Do nothing: no counts are read."""

    def choose(self) -> int:
        """Return the rank of the next request."""
        rank = self._next
        self._next = (rank + 1) % self._count
        return rank


RANK_CHOICES: dict[str, Callable[[Sequence[CountedRank]], RankChoice]] = {
    "least_requests": LeastRequests,
    "round_robin": RoundRobin,
}
