"""Batches that never preempt: each admitted sequence reserves blocks for its whole answer."""

from __future__ import annotations

from hermes_flow.pools.llm.batch import RunningBatch
from hermes_flow.pools.llm.blocks import BlockCounts, Found
from hermes_flow.pools.llm.cached_batch import CachingBatch


class Reserving(BlockCounts):
    """Reserves blocks for the prompt and the whole answer at admission, until the sequence ends.

    As if every request came with its output length as a limit; the mode is the baseline that paged KV memory
    is compared with.
    """

    __slots__ = ()

    def blocks_to_continue(self, computed: int, chunk: int) -> int:
        """Number of blocks that the next chunk of a prompt takes: none, they are reserved."""
        return 0

    def held_at_end(self, task: int) -> int:
        """Number of blocks of a sequence that has ended."""
        return self._blocks_for(task, 0)

    def steps_with_blocks(self, limit: int) -> int:
        """Number of iterations for which the free blocks suffice: any number."""
        return limit

    def _blocks_for(self, task: int, tokens: int) -> int:
        return -(-(self.tasks.prompt[task] + self.tasks.output[task]) // self.block_size)

    def _take_early(self, admission: int, computed: int) -> None:
        pass

    def _take_run(self, iteration: int, steps: int, early: int) -> None:
        pass

    def _count_boundary(self, residue: int, by: int, admission: int) -> None:
        pass


class ReservingBatch(Reserving, RunningBatch):
    """A reserving batch without a prefix cache."""

    __slots__ = ()

    def find(self, task: int) -> Found:
        """Return the blocks of the whole sequence, and what of its prompt was retrieved; changes nothing."""
        if self.reserved and task in self.reserved:
            return self._find_reserved(task)
        _, computed, none = super().find(task)
        return self._blocks_for(task, 0), computed, none

    def _take_first(self, admission: int, task: int, found: Found, chunk: int) -> None:
        self.free -= self._blocks_for(task, 0)

    def _take_entering(self, admission: int, task: int, computed: int) -> int:
        self.free -= self._blocks_for(task, 0)
        return 0

    def _free_preempted(self, admission: int, task: int, computed: int, known: int) -> None:
        """Free all that is reserved: nobody is preempted here, but sequences are taken back."""
        self.free += self._blocks_for(task, 0)


class CachingReservingBatch(Reserving, CachingBatch):
    """A reserving batch with a prefix cache: hits are part of what is reserved."""

    __slots__ = ()
