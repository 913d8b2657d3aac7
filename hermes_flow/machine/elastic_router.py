"""Chooses among the clients of a pool that are up; its policy begins anew whenever they change.

A policy sees a fixed number of clients: those that are up. What it remembers by client or by session (the homes of
sessions, the prompts that were sent, the turn) is in the pool's ``memory`` under the numbers of clients, which do not
change, and is handed to the next beginning. What was remembered of a client that has stopped is forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hermes_flow.program.routing import Choose

Begin = Callable[[Sequence[int]], Choose]  # numbers of the clients that are up → the choice among them


class ElasticRouter:
    """The choice among those of a router's clients that are up, by their numbers."""

    __slots__ = ("_begin", "_choose", "_up")

    def __init__(self, begin: Begin, up: Sequence[int]) -> None:
        self._begin = begin
        self._choose: Choose | None = None
        self._up: list[int] = []
        self.set_up(up)

    @property
    def is_open(self) -> bool:
        """Whether any client takes tasks."""
        return bool(self._up)

    def is_up(self, client: int) -> bool:
        """Return whether a client takes tasks."""
        return client in self._up

    def set_up(self, up: Sequence[int]) -> None:
        """Choose among these clients from now on, in the order of their numbers."""
        self._up = sorted(up)
        self._choose = self._begin(self._up) if self._up else None

    def choose(self, task: int, now_ns: int) -> int:
        """Return the number of the client that serves a task; at least one must be up."""
        assert self._choose is not None, "tasks wait while no client is up"
        return self._up[self._choose(task, now_ns)]
