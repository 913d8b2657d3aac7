"""Batches of models with linear layers: every sequence holds blocks for its states besides those of its tokens."""

from __future__ import annotations

from hermes_flow.pools.llm.batch import RunningBatch
from hermes_flow.pools.llm.blocks import BlockCounts, Found
from hermes_flow.pools.llm.reserving import ReservingBatch


class States(BlockCounts):
    """Takes ``state_blocks`` blocks more for each sequence, from its admission until it ends or is preempted.

    There is no prefix cache: blocks of tokens alone do not bring the state back.
    """

    __slots__ = ()

    state_blocks: int

    def find(self, task: int) -> Found:
        """Return the blocks that admitting a waiting task takes with its states; changes nothing."""
        blocks, computed, held = super().find(task)
        return blocks + self.state_blocks, computed, held

    def _take_first(self, admission: int, task: int, found: Found, chunk: int) -> None:
        super()._take_first(admission, task, found, chunk)
        self.free -= self.state_blocks

    def _take_entering(self, admission: int, task: int, computed: int) -> int:
        found = super()._take_entering(admission, task, computed)
        self.free -= self.state_blocks
        return found

    def _free_ended(self, admission: int, task: int) -> None:
        super()._free_ended(admission, task)
        self.free += self.state_blocks

    def _free_preempted(self, admission: int, task: int, computed: int, known: int) -> None:
        super()._free_preempted(admission, task, computed, known)
        self.free += self.state_blocks


class StateBatch(States, RunningBatch):
    """A batch that preempts by recomputing."""

    __slots__ = ("state_blocks",)


class ReservingStateBatch(States, ReservingBatch):
    """A batch that reserves blocks for whole sequences."""

    __slots__ = ("state_blocks",)
