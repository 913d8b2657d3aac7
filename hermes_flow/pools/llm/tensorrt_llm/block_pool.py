"""The KV blocks of a client with TensorRT-LLM's scheduler: free ones, those of requests, and those kept for reuse."""

from __future__ import annotations

from collections.abc import Container

from hermes_flow.pools.llm.tensorrt_llm.sequence import Sequence


class BlockPool:
    """Blocks of ``size`` tokens. A block with a name is found again; one that nobody holds goes when room is needed.

    Of blocks that nobody holds the one that was given back first goes first, the end of a sequence before its
    beginning.
    """

    __slots__ = ("_free", "_holders", "_idle", "blocks", "peak", "reuses", "size")

    def __init__(self, blocks: int, size: int, *, reuses: bool) -> None:
        self.blocks = blocks
        self.size = size
        self.reuses = reuses
        self.peak = 0
        self._free = blocks
        self._holders: dict[int, int] = {}  # name → how many sequences hold the block
        self._idle: dict[int, None] = {}  # those that nobody holds, in the order in which they go

    @property
    def available(self) -> int:
        """Blocks that nobody holds."""
        return self._free + len(self._idle)

    def whole(self, tokens: int) -> int:
        """Return how many blocks so many tokens need."""
        return -(-tokens // self.size)

    def found(self, sequence: Sequence) -> int:
        """Return how many of a sequence's first blocks are known; its last token is always computed."""
        if not self.reuses or sequence.begun:
            return 0
        most = (sequence.length - 1) // self.size
        count = 0
        for name in sequence.names[:most]:
            if name not in self._holders:
                break
            count += 1
        return count

    def waits_for(self, sequence: Sequence, coming: Container[int]) -> bool:
        """Return whether the first block of a sequence that is not known is one of those that are ``coming``."""
        if not self.reuses or sequence.begun:
            return False
        known = self.found(sequence)
        most = (sequence.length - 1) // self.size
        return known < min(most, len(sequence.names)) and sequence.names[known] in coming

    def claim(self, sequence: Sequence) -> None:
        """Let a sequence that begins hold the first of its blocks that are known, before others take any."""
        known = self.found(sequence)
        for name in sequence.names[:known]:
            if not self._holders[name]:
                del self._idle[name]
            self._holders[name] += 1
        sequence.kept = sequence.names[:known]
        sequence.held = known
        sequence.computed = known * self.size
        sequence.begun = True

    def fill(self, sequence: Sequence) -> None:
        """Give a sequence the rest of the blocks of all its tokens so far."""
        more = self.whole(sequence.length) - sequence.held
        if more > 0:
            sequence.held += more
            self._take(more)

    def grow(self, sequence: Sequence, tokens: int) -> None:
        """Give a sequence room for the next ``tokens``, which are computed."""
        sequence.computed += tokens
        more = self.whole(sequence.computed) - sequence.held
        if more > 0:
            sequence.held += more
            self._take(more)

    def publish(self, sequence: Sequence, tokens: int) -> None:
        """Let the whole blocks of the first ``tokens`` of a sequence be found, as far as no equal ones are known."""
        if not self.reuses:
            return
        at = len(sequence.kept)
        for name in sequence.names[at : tokens // self.size]:
            if name in self._holders:  # an equal block of somebody else: this one stays without a name
                break
            self._holders[name] = 1
            sequence.kept.append(name)

    def give_back(self, sequence: Sequence) -> None:
        """Take all blocks of a sequence; those with names can still be found."""
        self._free += sequence.held - len(sequence.kept)
        for name in reversed(sequence.kept):
            self._holders[name] -= 1
            if not self._holders[name]:
                self._idle[name] = None
        sequence.held = sequence.computed = 0
        sequence.kept = []
        sequence.begun = sequence.generating = False

    def note_peak(self) -> None:
        """Update the highest number of blocks that sequences hold."""
        self.peak = max(self.peak, self.blocks - self.available)

    def _take(self, count: int) -> None:
        self._free -= count
        while self._free < 0:
            name = next(iter(self._idle))
            del self._idle[name], self._holders[name]
            self._free += 1
