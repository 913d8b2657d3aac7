"""A run of decode steps of several ranks that is planned at once, each step a little longer than the one before."""

from __future__ import annotations

from hermes_flow.pools.llm.decode_run import steps_begun
from hermes_flow.pools.llm.rank import Rank


class EqualSteps:
    """``steps`` steps of ``ranks`` from ``start_ps`` on: step k, from 0, takes ``first_ps`` + k·``growth_ps``."""

    __slots__ = ("_lookahead", "first_ps", "growth_ps", "ranks", "start_ps", "steps")

    def __init__(
        self, start_ps: int, first_ps: int, growth_ps: int, ranks: list[Rank], *, lookahead: bool
    ) -> None:
        self.start_ps = start_ps
        self.first_ps = first_ps
        self.growth_ps = growth_ps
        self.ranks = ranks
        self.steps = 1
        self._lookahead = lookahead

    def end_ps(self, steps: int = 0) -> int:
        """Return when the last step ends, or the one after which there were ``steps``."""
        steps = steps or self.steps
        return self.start_ps + steps * self.first_ps + self.growth_ps * (steps * (steps - 1) // 2)

    def plan_ps(self) -> int:
        """Return when what follows is planned: as the last step ends, or with look-ahead as it begins."""
        last_ps = self.first_ps + self.growth_ps * (self.steps - 1)
        return self.end_ps() - (last_ps if self._lookahead else 0)

    def planned_before(self, at_ps: int) -> int:
        """Return how many steps of an endless run are planned before ``at_ps``, at least one."""
        steps = steps_begun(at_ps - self.start_ps, self.first_ps, self.growth_ps)
        return steps + 1 if self._lookahead or not steps else steps
