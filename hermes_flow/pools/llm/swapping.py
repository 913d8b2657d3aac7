"""A batch that preempts by swapping: blocks are copied to host memory and back, nothing is computed twice."""

from __future__ import annotations

from hermes_flow.pools.llm.batch import RunningBatch
from hermes_flow.pools.llm.tasks import LLMTasks


class SwappingBatch(RunningBatch):
    """A preempted decoding sequence keeps its computed tokens in host memory.

    The copies of a plan, out and in, lengthen its step by ``swap_ps_per_block`` each block. A sequence that is
    preempted while it prefills is recomputed.
    """

    __slots__ = ("swap_ps_per_block",)

    def __init__(self, tasks: LLMTasks, blocks: int, block_size: int, swap_ps_per_block: int) -> None:
        super().__init__(tasks, blocks, block_size)
        self.swap_ps_per_block = swap_ps_per_block

    def enter(self, task: int, start_ps: int) -> None:
        """Copy a task back; what another client has computed comes without a copy from the host."""
        if task in self.tasks.preemptions:
            blocks = -(-self.tasks.kept[task] // self.block_size)
            self.copy_ps += blocks * self.swap_ps_per_block
        super().enter(task, start_ps)

    def _keep(self, task: int, computed: int) -> int:
        self.tasks.kept[task] = computed
        self.copy_ps += -(-computed // self.block_size) * self.swap_ps_per_block
        return 1
