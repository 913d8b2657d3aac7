"""The blocks that a router has lately sent to each client."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence


class PrefixIndex:
    """The last ``capacity`` blocks that one client was sent (None: all).

    An approximation of the client's cache, made without asking it: its evictions are not seen. Of a prompt the first
    block counts as sent last, so that what is forgotten first are the ends of prompts.
    """

    __slots__ = ("_capacity", "_listed", "_prompts", "_sent", "_sent_in")

    def __init__(self, capacity: int | None) -> None:
        self._capacity = capacity
        self._sent = 0  # prompts
        self._sent_in: dict[Hashable, int] = {}  # block → the last prompt it was sent in
        self._prompts: deque[tuple[int, list[Hashable]]] = deque()  # with their blocks, as far as remembered
        self._listed = (
            0  # blocks in _prompts; those that were sent again since are no longer remembered there
        )

    def __len__(self) -> int:
        return len(self._sent_in)

    def matched(self, keys: Sequence[Hashable]) -> int:
        """Return how many of a prompt's first blocks are remembered."""
        known = self._sent_in
        depth = 0
        for key in keys:
            if key not in known:
                break
            depth += 1
        return depth

    def note(self, keys: Sequence[Hashable]) -> None:
        """Note that a prompt of these blocks is sent."""
        self._sent += 1
        blocks = dict.fromkeys(keys, self._sent)
        self._sent_in.update(blocks)
        if self._capacity is None:
            return
        self._prompts.append((self._sent, list(blocks)))
        self._listed += len(blocks)
        if len(self._sent_in) > self._capacity:
            self._forget(len(self._sent_in) - self._capacity)
        if self._listed > 2 * self._capacity:
            self._tidy()

    def _forget(self, count: int) -> None:
        """Forget the blocks that were not sent for longest."""
        known, prompts = self._sent_in, self._prompts
        while count:
            number, blocks = prompts[0]
            while blocks and count:
                key = blocks.pop()
                self._listed -= 1
                if known.get(key) == number:
                    del known[key]
                    count -= 1
            if not blocks:
                prompts.popleft()

    def _tidy(self) -> None:
        """Drop from the prompts what was sent again since."""
        known = self._sent_in
        kept = [(number, [key for key in keys if known.get(key) == number]) for number, keys in self._prompts]
        self._prompts = deque(entry for entry in kept if entry[1])
        self._listed = len(known)
