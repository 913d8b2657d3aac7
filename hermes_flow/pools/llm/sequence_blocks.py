"""Batches whose every sequence holds blocks besides those of its tokens, for states and windows of constant size."""

from __future__ import annotations

from hermes_flow.pools.llm.batch import RunningBatch
from hermes_flow.pools.llm.blocks import BlockCounts, Found
from hermes_flow.pools.llm.cached_batch import CachingBatch
from hermes_flow.pools.llm.prefix_cache import BlockStore, Held
from hermes_flow.pools.llm.reserving import CachingReservingBatch, ReservingBatch


class PerSequence(BlockCounts):
    """Takes ``sequence_blocks`` blocks more for each sequence, from its admission until it ends or is preempted."""

    __slots__ = ()

    sequence_blocks: int

    def find(self, task: int) -> Found:
        """Return the blocks that admitting a waiting task takes with those of its sequence; changes nothing."""
        blocks, computed, held = super().find(task)
        if self.reserved and task in self.reserved:
            return blocks, computed, held
        return blocks + self.sequence_blocks, computed, held

    def _take_first(self, admission: int, task: int, found: Found, chunk: int) -> None:
        super()._take_first(admission, task, found, chunk)
        self._take_more()

    def _take_entering(self, admission: int, task: int, computed: int) -> int:
        found = super()._take_entering(admission, task, computed)
        self._take_more()
        return found

    def _free_ended(self, admission: int, task: int) -> None:
        super()._free_ended(admission, task)
        self._free_more()

    def _free_preempted(self, admission: int, task: int, computed: int, known: int) -> None:
        super()._free_preempted(admission, task, computed, known)
        self._free_more()

    def _take_more(self) -> None:
        self.free -= self.sequence_blocks

    def _free_more(self) -> None:
        self.free += self.sequence_blocks


class PerSequenceCaching(PerSequence):
    """The same on top of a prefix cache, whose store counts the blocks."""

    __slots__ = ()

    _store: BlockStore

    def _take_more(self) -> None:
        self._store.take(self.sequence_blocks)
        self.free = self._store.free

    def _free_more(self) -> None:
        self._store.release(Held(), unnamed=0, blank=self.sequence_blocks)
        self.free = self._store.free


class SequenceBatch(PerSequence, RunningBatch):
    """A batch that preempts."""

    __slots__ = ("sequence_blocks",)


class ReservingSequenceBatch(PerSequence, ReservingBatch):
    """A batch that reserves blocks for whole sequences."""

    __slots__ = ("sequence_blocks",)


class CachingSequenceBatch(PerSequenceCaching, CachingBatch):
    """A batch with a prefix cache that preempts."""

    __slots__ = ("sequence_blocks",)


class CachingReservingSequenceBatch(PerSequenceCaching, CachingReservingBatch):
    """A batch with a prefix cache that reserves blocks for whole sequences."""

    __slots__ = ("sequence_blocks",)
