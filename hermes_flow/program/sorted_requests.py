"""Requests in the order of a key, from which the first, the last and any other can be taken."""

from __future__ import annotations

from bisect import bisect_left, insort

_SPARE = 64

Key = tuple[float, int]  # (key, order of arrival)


class SortedRequests:
    """Requests by key; equal keys in the order in which they came."""

    __slots__ = ("_came", "_entries", "_first", "_keys")

    def __init__(self) -> None:
        self._entries: list[tuple[Key, int]] = []
        self._first = 0  # entries before it are taken
        self._keys: dict[int, Key] = {}
        self._came = 0

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, request: int, key: float) -> None:
        """Add a request."""
        self._came += 1
        place = self._keys[request] = (key, self._came)
        if not self._entries or self._entries[-1][0] < place:
            self._entries.append((place, request))
        else:
            insort(self._entries, (place, request), lo=self._first)

    def take(self) -> tuple[int, float]:
        """Remove the first request; return it and its key."""
        (key, _), request = self._entries[self._first]
        self._first += 1
        if self._first > _SPARE and 2 * self._first > len(self._entries):
            del self._entries[: self._first]
            self._first = 0
        del self._keys[request]
        return request, key

    def last(self) -> int:
        """Return the last request."""
        return self._entries[-1][1]

    def remove(self, request: int) -> None:
        """Remove a request."""
        key = self._keys.pop(request)
        del self._entries[bisect_left(self._entries, (key, request), lo=self._first)]
