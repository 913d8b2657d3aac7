"""The waiting queue of a client with adapters: it passes over tasks whose adapter has no place now."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Set

from hermes_flow.pools.llm.adapter_slots import AdapterSlots


class AdapterQueue:
    """Tasks in order of arrival; preempted ones return to the head.

    The head (``queue[0]``, ``popleft``) is the first task that may be admitted, as vLLM's scheduler goes on with the
    next request where one would exceed ``max_loras``. The queue is true while there is such a task; its length counts
    all. ``seen`` are all tasks in the order in which they came for the first time. Those in ``reserved`` have come
    back with their blocks, and go before all others.
    """

    __slots__ = (
        "_adapter",
        "_all",
        "_by",
        "_first",
        "_last",
        "_place",
        "_ready",
        "_reserved",
        "seen",
        "slots",
    )

    def __init__(self, adapter: list[int], slots: AdapterSlots, reserved: Set[int] = frozenset()) -> None:
        self._adapter = adapter
        self._reserved = reserved
        self._ready: list[int] = []  # those that have their blocks, in order
        self.slots = slots
        self._place: dict[int, int] = {}  # waiting task → its place in the order
        self._all: deque[tuple[int, int]] = deque()  # (place, task), with tasks that have left
        self._by: dict[int, deque[tuple[int, int]]] = {}  # the same by adapter
        self._first = 0
        self._last = 0
        self.seen: list[int] = []

    def __len__(self) -> int:
        return len(self._place)

    def __bool__(self) -> bool:
        return self[0] >= 0

    def __contains__(self, task: int) -> bool:
        return task in self._place

    def __iter__(self) -> Iterator[int]:
        """Yield the tasks in order, those that are passed over included."""
        return iter(sorted(self._place, key=self._place.__getitem__))

    def __getitem__(self, place: int) -> int:
        """Return the first task that may be admitted, -1 where there is none."""
        if place:
            raise IndexError("only the head of the queue is known")
        slots = self.slots
        for task in self._ready:
            if slots.fits(self._adapter[task]):
                return task
        if slots.fits(_ANY):
            return self._head(self._all)[1]
        heads = [self._head(self._by[one]) for one in (-1, *slots.users) if one in self._by]
        waiting = [head for head in heads if head[1] >= 0]
        return min(waiting)[1] if waiting else -1

    def enter(self, task: int, at_ps: int) -> None:
        """Add a task that the scheduler sees for the first time."""
        self.seen.append(task)
        self._last += 1
        self._place[task] = self._last
        self._all.append((self._last, task))
        self._by.setdefault(self._adapter[task], deque()).append((self._last, task))

    def enter_ready(self, task: int) -> None:
        """Take back a task: behind those that have their blocks, if it has its own, else before all others."""
        if task not in self._reserved:
            self.extendleft([task])
            return
        self._place[task] = _FIRST + len(self._ready)
        self._ready.append(task)

    def popleft(self) -> int:
        """Remove and return the first task that may be admitted."""
        task = self[0]
        self.withdraw(task)
        return task

    def extendleft(self, tasks: Iterable[int]) -> None:
        """Take back preempted tasks, the last of them first."""
        for task in tasks:
            self._first -= 1
            self._place[task] = self._first
            self._all.appendleft((self._first, task))
            self._by.setdefault(self._adapter[task], deque()).appendleft((self._first, task))

    def withdraw(self, task: int) -> None:
        """Remove a task, wherever it stands."""
        del self._place[task]
        if self._ready and task in self._ready:
            self._ready.remove(task)

    def _head(self, queue: deque[tuple[int, int]]) -> tuple[int, int]:
        """Return the first entry whose task still waits there; (0, -1) where none does."""
        while queue:
            place, task = queue[0]
            if self._place.get(task) == place:
                return queue[0]
            queue.popleft()
        return 0, -1


_ANY = 1 << 62  # an adapter that nobody has
_FIRST = -(1 << 62)  # a place before all others
