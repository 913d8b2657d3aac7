"""Routing policies that give each client a score and choose the lowest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias, runtime_checkable

from hermes_flow.program.routing import Choose, RoutedPool, RoutingPolicy

Scores: TypeAlias = Callable[[int, int], Sequence[float]]  # (task, now_ns) → a score per client, 0 or more


class Scorer(Protocol):
    """The scores of a pool's clients during one run."""

    def scores(self, task: int, now_ns: int) -> Sequence[float]:
        """Return a score per client for a task that is ready now: 0 or more, lower is better."""

    def routed(self, task: int, client: int) -> None:
        """Note where a task went, whichever policy decided it; every task is reported, in order."""


@runtime_checkable
class ScoringPolicy(RoutingPolicy, Protocol):
    """A policy that can also be one of several in ``weighted``."""

    def scorer(self, pool: RoutedPool) -> Scorer:
        """Return the scores of a pool's clients; made anew for every run."""


class Unmoved:
    """Scores that depend on earlier tasks only through the clients themselves."""

    __slots__ = ("scores",)

    def __init__(self, scores: Scores) -> None:
        self.scores = scores

    def routed(self, task: int, client: int) -> None:
        """Do nothing: these scores remember nothing."""


def lowest(scores: Scores) -> Choose:
    """Return the choice of the first client with the lowest score."""

    def choose(task: int, now_ns: int) -> int:
        values = scores(task, now_ns)
        return values.index(min(values))

    return choose
