"""KV blocks that can be found by their content: who holds them, and in which order blocks are evicted.

The rules are those of vLLM V1's block pool. A block that nobody holds waits in a queue and keeps its content
until its turn comes; a hit takes it out of the queue. A sequence that leaves returns its last block first;
blocks without full, known content go to the head of the queue, the others to its end.

Most blocks hold what no other request will ask for: they are counted, not named. Only a block that a key can
find has a number.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable


class BlockStore:
    """``count`` blocks, of which ``free`` are held by nobody."""

    __slots__ = ("_blank", "_found", "_holders", "_key_of", "_numbers", "_queue", "_stale", "_twins", "free")

    def __init__(self, count: int) -> None:
        self.free = count
        self._blank = count  # free blocks without content: always the next to be taken
        # The other free blocks in order of eviction: a number, or −n for n blocks that nobody can find. May
        # name blocks that were hit since; _stale counts their entries.
        self._queue: deque[int] = deque()
        self._stale: dict[int, int] = {}
        self._numbers = 0
        self._key_of: dict[int, Hashable] = {}
        self._holders: dict[int, int] = {}
        self._found: dict[Hashable, int] = {}
        self._twins: dict[Hashable, list[int]] = {}  # further blocks of the same content, in order

    def hits(self, keys: Iterable[Hashable]) -> list[int]:
        """Return the blocks that hold the longest prefix of ``keys``."""
        found = self._found
        blocks: list[int] = []
        for key in keys:
            block = found.get(key)
            if block is None:
                break
            blocks.append(block)
        return blocks

    def idle(self, blocks: list[int]) -> int:
        """Return how many of these blocks nobody holds."""
        holders = self._holders
        return sum(not holders[block] for block in blocks)

    def share(self, blocks: list[int]) -> None:
        """Let one more sequence hold these blocks."""
        holders = self._holders
        for block in blocks:
            if not holders[block]:
                self._stale[block] = self._stale.get(block, 0) + 1
                self.free -= 1
            holders[block] += 1

    def take(self, count: int) -> None:
        """Take ``count`` free blocks, in order of eviction; what they held can no longer be found."""
        self.free -= count
        blank = min(count, self._blank)
        self._blank -= blank
        count -= blank
        queue = self._queue
        stale = self._stale
        while count:
            block = queue.popleft()
            if block < 0:
                if block + count < 0:
                    queue.appendleft(block + count)
                    return
                count += block
            elif stale and block in stale:
                stale[block] -= 1
                if not stale[block]:
                    del stale[block]
            else:
                count -= 1
                self._forget(block)

    def remember(self, key: Hashable) -> int:
        """Number a block that one sequence holds, to be found by ``key`` behind those of the same content."""
        self._numbers = block = self._numbers + 1
        self._key_of[block] = key
        self._holders[block] = 1
        if key in self._found:
            self._twins.setdefault(key, []).append(block)
        else:
            self._found[key] = block
        return block

    def release(self, blocks: list[int], unnamed: int, blank: int) -> None:
        """Let a sequence go of its blocks: first the numbered ones, then ``unnamed`` full ones, then ``blank``."""
        self._blank += blank
        self.free += blank + unnamed
        queue = self._queue
        if unnamed:
            queue.append(-unnamed)
        holders = self._holders
        for block in reversed(blocks):
            holders[block] -= 1
            if not holders[block]:
                queue.append(block)
                self.free += 1

    def _forget(self, block: int) -> None:
        key = self._key_of.pop(block)
        del self._holders[block]
        twins = self._twins.get(key) if self._twins else None
        if twins is None:
            del self._found[key]
            return
        if self._found[key] == block:
            self._found[key] = twins.pop(0)
        else:
            twins.remove(block)
        if not twins:
            del self._twins[key]
