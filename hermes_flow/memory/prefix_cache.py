"""KV blocks by number: who holds them, which content they can be found by, and in which order they are evicted.

The rules are those of vLLM V1's block pool: a block that nobody holds waits in a queue and keeps its content
until its turn comes; a hit takes it out of the queue; a sequence that leaves returns its last block first, and
blocks without findable content go to the head of the queue.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable


class BlockStore:
    """``count`` blocks; ``free`` of them are held by nobody, and ``keyed`` says which content can be found.

    Only blocks with a key are counted by holders: the others are held by one sequence at most.
    """

    __slots__ = (
        "_blank",
        "_count",
        "_found",
        "_fresh",
        "_holders",
        "_queue",
        "_stale",
        "_twins",
        "free",
        "keyed",
    )

    def __init__(self, count: int) -> None:
        self.free = count
        self.keyed: dict[int, Hashable] = {}
        # In order of eviction: blank blocks, those never used (_fresh and up), those with content.
        self._blank: list[int] = []  # the next one last
        self._fresh = 0
        self._count = count
        self._queue: deque[int] = deque()  # may name blocks that were hit since
        self._stale: dict[int, int] = {}  # block → its entries in the queue that no longer count
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
        """Return how many of these blocks with keys nobody holds."""
        holders = self._holders
        return sum(not holders[block] for block in blocks)

    def share(self, blocks: list[int]) -> None:
        """Let one more sequence hold these blocks with keys."""
        holders = self._holders
        for block in blocks:
            if not holders[block]:
                self._stale[block] = self._stale.get(block, 0) + 1
                self.free -= 1
            holders[block] += 1

    def take_one(self) -> int:
        """Return the block whose turn it is; what it held can no longer be found."""
        self.free -= 1
        if self._blank:
            return self._blank.pop()
        if self._fresh < self._count:
            self._fresh += 1
            return self._fresh - 1
        stale = self._stale
        while True:
            block = self._queue.popleft()
            if not stale or block not in stale:
                break
            stale[block] -= 1
            if not stale[block]:
                del stale[block]
        if block in self.keyed:
            self._evict(block)
        return block

    def take(self, count: int) -> list[int]:
        """Return ``count`` blocks, in order of eviction."""
        return [self.take_one() for _ in range(count)]

    def remember(self, block: int, key: Hashable) -> None:
        """Let a block that one sequence holds be found by ``key``, behind those that hold the same already."""
        self.keyed[block] = key
        self._holders[block] = 1
        if key in self._found:
            self._twins.setdefault(key, []).append(block)
        else:
            self._found[key] = block

    def release(self, blocks: list[int], full: int) -> None:
        """Let a sequence go of its blocks, the last one first.

        Those after the first ``full`` hold nothing to be found and are the next to be taken; the others queue
        up at the end.
        """
        keyed = self.keyed
        queue = self._queue
        self._blank += blocks[full:]
        self.free += len(blocks) - full
        for block in reversed(blocks[:full]):
            if block in keyed:
                self._holders[block] -= 1
                if self._holders[block]:
                    continue
            queue.append(block)
            self.free += 1

    def _evict(self, block: int) -> None:
        key = self.keyed.pop(block)
        del self._holders[block]
        twins = self._twins.get(key)
        if twins is None:
            del self._found[key]
            return
        if self._found[key] == block:
            self._found[key] = twins.pop(0)
        else:
            twins.remove(block)
        if not twins:
            del self._twins[key]
