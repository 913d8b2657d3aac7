"""What a router remembers of the prompts it has sent: which client was sent which blocks lately."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence


class PrefixIndex:
    """For each client the ``capacity`` blocks that it was sent last (None: all).

    An approximation of the clients' caches, made without asking them: the router does not see their evictions. Of a
    prompt the first block counts as sent last, so that what is forgotten first are the ends of prompts.
    """

    __slots__ = ("_all", "_capacity", "_clients", "_holders", "_sent")

    def __init__(self, clients: int, capacity: int | None) -> None:
        self._capacity = capacity
        self._clients = clients
        self._all = (1 << clients) - 1
        self._holders: dict[Hashable, int] = {}  # block → its clients, a bit each
        self._sent: list[OrderedDict[Hashable, None]] = [OrderedDict() for _ in range(clients)]

    def matched(self, keys: Sequence[Hashable]) -> list[int]:
        """Return how many of the first blocks of a prompt each client holds: O(the most of them + clients)."""
        holders = self._holders
        depths = [0] * self._clients
        left = self._all
        depth = 0
        for key in keys:
            here = holders.get(key, 0) & left
            if here != left:
                _set(depths, left & ~here, depth)
                left = here
                if not left:
                    return depths
            depth += 1
        _set(depths, left, depth)
        return depths

    def note(self, keys: Sequence[Hashable], client: int) -> None:
        """A prompt of these blocks was sent to ``client``."""
        holders = self._holders
        sent = self._sent[client]
        bit = 1 << client
        for key in reversed(keys):
            if key in sent:
                sent.move_to_end(key)
            else:
                sent[key] = None
                holders[key] = holders.get(key, 0) | bit
        if self._capacity is None:
            return
        while len(sent) > self._capacity:
            key, _ = sent.popitem(last=False)
            holders[key] ^= bit
            if not holders[key]:
                del holders[key]


def _set(depths: list[int], clients: int, depth: int) -> None:
    while clients:
        lowest = clients & -clients
        depths[lowest.bit_length() - 1] = depth
        clients ^= lowest
