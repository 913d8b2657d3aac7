"""The queue of what leaves an LLM client at which time: answers, and prompts whose first KV layer may move."""

from __future__ import annotations

from collections import deque
from typing import TypeVar

from hermes_flow.program.units import PS_PER_NS

T = TypeVar("T")


class Outbox:
    """Tasks by the instants at which they leave, in picoseconds; all queues are in order of time.

    With ``kv_layers`` the first layer of a prompt's KV leaves after its share of the prompt's first step; 0: no layer
    leaves before the others. ``watched`` are tokens of answers, as (task, token), that somebody waits for.
    """

    __slots__ = ("_kv_layers", "beginnings", "ends", "watched")

    def __init__(self, kv_layers: int) -> None:
        self._kv_layers = kv_layers
        self.beginnings: deque[tuple[int, int]] = deque()
        self.ends: deque[tuple[int, int]] = deque()
        self.watched: deque[tuple[int, tuple[int, int]]] = deque()

    def next_ps(self, otherwise: int) -> int:
        """Return when something leaves next, at the latest ``otherwise``."""
        if self.ends and self.ends[0][0] < otherwise:
            otherwise = self.ends[0][0]
        if self.beginnings and self.beginnings[0][0] < otherwise:
            otherwise = self.beginnings[0][0]
        if self.watched and self.watched[0][0] < otherwise:
            otherwise = self.watched[0][0]
        return otherwise

    def withdraw(self, task: int) -> None:
        """Let a task leave no more."""
        for queue in (self.ends, self.beginnings):
            for entry in [entry for entry in queue if entry[1] == task]:
                queue.remove(entry)
        for marked in [marked for marked in self.watched if marked[1][0] == task]:
            self.watched.remove(marked)

    def note_begun(self, begun: list[int], start_ps: int, end_ps: int) -> None:
        """Note the prompts that a step begins, and empty the list."""
        if self._kv_layers:
            first = start_ps + (end_ps - start_ps) // self._kv_layers
            self.beginnings.extend((first, task) for task in begun)
        begun.clear()


def due(queue: deque[tuple[int, T]], now_ns: int) -> list[T]:
    """Remove and return what leaves within a nanosecond."""
    until = (now_ns + 1) * PS_PER_NS
    tasks = []
    while queue and queue[0][0] < until:
        tasks.append(queue.popleft()[1])
    return tasks
