"""The blocks of an LLM client whose content goes to tiers of memory, as it is evicted or as it is computed."""

from __future__ import annotations

from collections.abc import Sequence

from hermes_flow.pools.llm.offload.tiers import Tiers
from hermes_flow.pools.llm.prefix_cache import BlockStore, Held, Run, leave_queue


class OffloadingStore(BlockStore):
    """Writes full blocks to the first of the ``tiers``: evicted ones, or with ``writes_computed`` computed ones.

    Blocks whose content nobody can ask for are written too, as an engine does not know that.
    """

    __slots__ = ("_tiers", "_writes_computed")

    def __init__(self, count: int, tiers: Tiers, *, writes_computed: bool) -> None:
        super().__init__(count)
        self._tiers = tiers
        self._writes_computed = writes_computed

    def take(self, count: int) -> None:
        """Take free blocks in order of eviction; see ``BlockStore``."""
        self.free -= count
        blank = min(count, self._blank)
        self._blank -= blank
        count -= blank
        while count:
            piece = self._queue.after
            blocks = min(piece.last - piece.first, count)
            count -= blocks
            piece.last -= blocks
            copy = piece.copy
            if not self._writes_computed:
                chain = None if copy is None else copy.chain
                self._tiers.put(chain, piece.last, piece.last + blocks)
            if piece.first == piece.last:
                leave_queue(piece)
                if copy is not None:
                    self._forget(copy, piece)

    def remember(self, held: Held, runs: Sequence[Run], blocks: int) -> None:
        """Make blocks findable, and write them.

        The blocks before them count as used again, so that the beginning of a content is kept longer than its end.
        """
        begin = held.blocks
        super().remember(held, runs, blocks)
        if not self._writes_computed or held.blocks == begin:
            return
        for copy, first, last in reversed(held.parts):
            self._tiers.put(copy.chain, first, last)

    def drop(self, held: Held) -> None:
        """Make free blocks blank that nobody holds, so that their content is gone at once."""
        for copy, first, last in held.parts:
            for piece in self._cut_out(copy, first, last):
                if not piece.holders:
                    leave_queue(piece)
                    self._blank += piece.last - piece.first
                    self._forget(copy, piece)

    def offload(self, held: Held) -> None:
        """Write blocks to the first tier, the last of them first."""
        for copy, first, last in reversed(held.parts):
            self._tiers.put(copy.chain, first, last)

    def release(self, held: Held, unnamed: int, blank: int) -> None:
        """Let a sequence go of its blocks; see ``BlockStore``."""
        if unnamed and self._writes_computed:
            self._tiers.put(None, 0, unnamed)
        super().release(held, unnamed, blank)
