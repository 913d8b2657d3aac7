"""The waiting queues of an LLM client, sorted by a packing order, with the interface of a deque."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from heapq import heapify, heappop, heappush
from typing import TypeAlias

from hermes_flow.pools.llm.adapter_queue import AdapterQueue

_BEFORE_ALL = -(1 << 80)


class SortedQueue:
    """Tasks by key, lowest first; equal keys in order of their first arrival.

    ``key(task, at_ps)`` is read when a task enters, and again when it comes back after a preemption. Tasks in
    ``since_ps`` arrived then, and enter only when they are ready. Those that return with their blocks (``reserved``)
    go before all.
    """

    __slots__ = ("_heap", "_key", "_order", "_reserved", "_returned", "_since_ps")

    def __init__(self, key: Callable[[int, int], int], since_ps: dict[int, int], reserved: set[int]) -> None:
        self._key = key
        self._since_ps = since_ps
        self._reserved = reserved
        self._heap: list[tuple[int, tuple[int, int], int]] = []  # (key, order of first arrival, task)
        self._order: dict[int, tuple[int, int]] = {}
        self._returned = 0

    def __len__(self) -> int:
        return len(self._heap)

    def __getitem__(self, place: int) -> int:
        if place:
            raise IndexError("only the head of a sorted queue is known")
        return self._heap[0][2]

    def __contains__(self, task: int) -> bool:
        return any(entry[2] == task for entry in self._heap)

    def __iter__(self) -> Iterator[int]:
        """Yield the tasks in order."""
        return (task for _, _, task in sorted(self._heap))

    def enter(self, task: int, at_ps: int) -> None:
        """Add a task that the scheduler sees for the first time."""
        self._order[task] = (self._since_ps.pop(task, at_ps), len(self._order))
        self._push(task)

    def enter_ready(self, task: int) -> None:
        """Take back a task, before all others if it has blocks; those in ``since_ps`` enter."""
        if task in self._since_ps:
            self.enter(task, 0)
            return
        if task not in self._reserved:
            self._push(task)
            return
        self._returned += 1
        heappush(self._heap, (_BEFORE_ALL, (self._returned, 0), task))

    def popleft(self) -> int:
        """Remove and return the first task."""
        return heappop(self._heap)[2]

    def extendleft(self, tasks: Iterable[int]) -> None:
        """Take back preempted tasks, each in its place."""
        for task in tasks:
            self._push(task)

    def withdraw(self, task: int) -> None:
        """Remove a task, wherever it stands."""
        self._heap = [entry for entry in self._heap if entry[2] != task]
        heapify(self._heap)

    def _push(self, task: int) -> None:
        order = self._order[task]
        heappush(self._heap, (self._key(task, order[0]), order, task))


class ArrivalQueue(deque[int]):
    """Tasks in order of arrival; preempted ones return to the head, behind those in ``reserved``.

    Tasks in ``reserved`` have come back with their blocks, and lack only a seat.
    Tasks in ``since_ps`` arrived then, and enter only when they are ready: before those that came later.
    """

    __slots__ = ("_arrival_ps", "_reserved", "_since_ps")

    def __init__(self, since_ps: dict[int, int], reserved: set[int]) -> None:
        super().__init__()
        self._since_ps = since_ps
        self._reserved = reserved
        self._arrival_ps: dict[int, int] = {}  # of those that entered while others were not ready

    def enter(self, task: int, at_ps: int) -> None:
        """Add a task that is ready, as the scheduler sees it."""
        if self._since_ps:
            self._enter_in_place(task, at_ps)
        else:
            self.append(task)

    def withdraw(self, task: int) -> None:
        """Remove a task, wherever it stands."""
        self.remove(task)

    def enter_ready(self, task: int) -> None:
        """Take back a task, behind those that have their blocks; those in ``since_ps`` enter."""
        if task in self._since_ps:
            self.enter(task, 0)
            return
        self.insert(self._ready(), task)

    def extendleft(self, tasks: Iterable[int]) -> None:
        """Take back preempted tasks, the last of them first."""
        if not self._reserved:
            super().extendleft(tasks)
            return
        place = self._ready()
        for task in tasks:
            self.insert(place, task)

    def _ready(self) -> int:
        """Return how many tasks at the head have their blocks."""
        place = 0
        while place < len(self) and self[place] in self._reserved:
            place += 1
        return place

    def _enter_in_place(self, task: int, at_ps: int) -> None:
        arrivals = self._arrival_ps
        arrivals[task] = at_ps = self._since_ps.pop(task, at_ps)
        place = len(self)
        while place and arrivals.get(self[place - 1], -1) > at_ps:
            place -= 1
        self.insert(place, task)


WaitingQueue: TypeAlias = ArrivalQueue | SortedQueue | AdapterQueue
