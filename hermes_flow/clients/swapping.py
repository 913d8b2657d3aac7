"""A batch that preempts by swapping: blocks are copied to host memory and back, nothing is computed twice."""

from __future__ import annotations

from hermes_flow.clients.batch import LLMTasks, RunningBatch


class SwappingBatch(RunningBatch):
    """A preempted decoding sequence keeps its computed tokens in host memory.

    The copies of a plan, out and in, lengthen its step by ``swap_ps_per_block`` each block. A sequence that
    comes back needs a seat and the blocks of its computed tokens and the next one, takes no token budget,
    and decodes from the plan after. A sequence preempted while it prefills is recomputed.
    """

    __slots__ = ("_back", "swap_ps_per_block")

    def __init__(self, tasks: LLMTasks, blocks: int, block_size: int, swap_ps_per_block: int) -> None:
        super().__init__(tasks, blocks, block_size)
        self.swap_ps_per_block = swap_ps_per_block
        self._back: list[tuple[int, int]] = []  # (admission, task) that come back in the step being planned

    def is_swapped(self, task: int) -> bool:
        """Whether a waiting task only has to be copied back."""
        return task in self.tasks.kept

    def blocks_to_admit(self, task: int) -> int:
        """Number of free blocks without which ``task`` cannot be admitted."""
        computed = self.tasks.kept.get(task)
        if computed is None:
            return super().blocks_to_admit(task)
        return -(-(computed + 1) // self.block_size)

    def swap_in(self, task: int) -> None:
        """Give a swapped task a seat and its blocks; it decodes from the next plan on."""
        self._admissions = admission = self._admissions + 1
        self.running[admission] = task
        self.tasks.last_iteration[task] = -1
        blocks = -(-self.tasks.kept.pop(task) // self.block_size)
        self.free -= blocks
        self.copy_ps += blocks * self.swap_ps_per_block
        self._back.append((admission, task))

    def rejoin(self) -> None:
        """Let the sequences that were copied back in the step now planned decode from the next one on."""
        for admission, task in self._back:
            self._start_decoding(admission, task, self.tasks.generated[task])
        self._back.clear()

    def _keep(self, task: int, computed: int) -> int:
        self.tasks.kept[task] = computed
        self.copy_ps += -(-computed // self.block_size) * self.swap_ps_per_block
        return 0
