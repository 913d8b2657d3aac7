"""The waiting queue of an LLM client in a packing order, with the interface of a deque."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from heapq import heappop, heappush
from typing import TypeAlias


class SortedQueue:
    """Tasks by key, lowest first; equal keys in order of their first arrival.

    ``key(task, at_ps)`` is read when a task enters, and again when it comes back after a preemption.
    """

    __slots__ = ("_arrival_ps", "_heap", "_key", "_order")

    def __init__(self, key: Callable[[int, int], int]) -> None:
        self._key = key
        self._heap: list[tuple[int, int, int]] = []  # (key, order of first arrival, task)
        self._order: dict[int, int] = {}
        self._arrival_ps: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._heap)

    def __getitem__(self, place: int) -> int:
        if place:
            raise IndexError("only the head of a sorted queue is known")
        return self._heap[0][2]

    def __iter__(self) -> Iterator[int]:
        """Yield the tasks in order."""
        return (task for _, _, task in sorted(self._heap))

    def enter(self, task: int, at_ps: int) -> None:
        """Add a task that the scheduler sees for the first time."""
        self._order[task] = len(self._order)
        self._arrival_ps[task] = at_ps
        self._push(task)

    def popleft(self) -> int:
        """Remove and return the first task."""
        return heappop(self._heap)[2]

    def extendleft(self, tasks: Iterable[int]) -> None:
        """Take back preempted tasks, each in its place."""
        for task in tasks:
            self._push(task)

    def _push(self, task: int) -> None:
        heappush(self._heap, (self._key(task, self._arrival_ps[task]), self._order[task], task))


class ArrivalQueue(deque[int]):
    """Tasks in order of arrival; preempted ones return to the head."""

    __slots__ = ()

    def enter(self, task: int, at_ps: int) -> None:
        """Add a task that the scheduler sees for the first time."""
        self.append(task)


WaitingQueue: TypeAlias = ArrivalQueue | SortedQueue
