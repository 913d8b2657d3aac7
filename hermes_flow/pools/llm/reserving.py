"""A batch that never preempts: whole sequences are reserved when they are admitted."""

from __future__ import annotations

from hermes_flow.pools.llm.batch import RunningBatch
from hermes_flow.pools.llm.blocks import Found


class ReservingBatch(RunningBatch):
    """Blocks for the prompt and all of the answer are taken at admission and held to the end.

    As if every request came with its output length as a limit; the mode is the baseline that paged KV memory
    is compared with.
    """

    __slots__ = ()

    def find(self, task: int) -> Found:
        """Return the blocks of the whole sequence, and what of its prompt was retrieved; changes nothing."""
        _, computed, none = super().find(task)
        return self._reserved(task), computed, none

    def _take_first(self, admission: int, task: int, found: Found, chunk: int) -> None:
        self.free -= self._reserved(task)

    def blocks_to_continue(self, computed: int, chunk: int) -> int:
        """Number of blocks that the next chunk of a prompt takes: none, they are reserved."""
        return 0

    def held_at_end(self, task: int) -> int:
        """Number of blocks of a sequence that has ended."""
        return self._reserved(task)

    def steps_with_blocks(self, limit: int) -> int:
        """Number of iterations for which the free blocks suffice: any number."""
        return limit

    def _take_entering(self, admission: int, task: int, computed: int) -> None:
        self.free -= self._reserved(task)

    def _take_run(self, iteration: int, steps: int, early: int) -> None:
        pass

    def _count_boundary(self, residue: int, by: int, admission: int) -> None:
        pass

    def _reserved(self, task: int) -> int:
        return -(-(self.tasks.prompt[task] + self.tasks.output[task]) // self.block_size)
