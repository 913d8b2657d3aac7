"""Counts the unfinished tasks of many clients as tasks come and end, and finds the client with the fewest."""

from __future__ import annotations

from collections import deque
from heapq import heapify, heappop, heappush

_PLACE_BITS = 32
_PLACE_MASK = (1 << _PLACE_BITS) - 1
_SPARE_ENTRIES = 1024


class Unfinished:
    """The unfinished tasks of clients 0 to ``clients`` − 1; finding the least takes O(log clients).

    Calls come in the order of simulated time. A task that ends at an instant counts until that instant is over.
    """

    __slots__ = ("_counts", "_ended", "_heap")

    def __init__(self, clients: int) -> None:
        self._counts = [0] * clients
        self._heap = list(range(clients))  # count and place, packed; outdated where the count is another one
        self._ended: deque[tuple[int, int]] = deque()  # (instant, client) of ends that still count

    def come(self, client: int) -> None:
        """Count a task that is on its way to a client."""
        self._counts[client] += 1
        self._enter(client)

    def end(self, client: int, now_ns: int) -> None:
        """Note that a task of a client has ended."""
        self._ended.append((now_ns, client))

    def leave(self, client: int) -> None:
        """Count a task no longer that was taken back from a client."""
        self._counts[client] -= 1
        self._enter(client)

    def least(self, now_ns: int) -> int:
        """Return the client with the fewest tasks not finished before ``now_ns``, the first of equals."""
        ended, counts = self._ended, self._counts
        while ended and ended[0][0] < now_ns:
            client = ended.popleft()[1]
            counts[client] -= 1
            self._enter(client)
        heap = self._heap
        while True:
            client = heap[0] & _PLACE_MASK
            if counts[client] == heap[0] >> _PLACE_BITS:
                return client
            heappop(heap)

    def _enter(self, client: int) -> None:
        heap = self._heap
        if len(heap) > 4 * len(self._counts) + _SPARE_ENTRIES:
            heap[:] = [count << _PLACE_BITS | place for place, count in enumerate(self._counts)]
            heapify(heap)
        else:
            heappush(heap, self._counts[client] << _PLACE_BITS | client)
