"""A batch with a prefix cache: blocks have identities, and what they hold can be found again.

Preempted sequences are recomputed, but begin with what is still cached of them. Prompts are found by the
request's block keys; everything else a sequence holds is private to it and matters only if it is preempted,
so its keys are given no earlier than that.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator

from hermes_flow.clients.batch import LLMTasks, RunningBatch
from hermes_flow.memory.prefix_cache import BlockStore


class CachingBatch(RunningBatch):
    """Hits spare computing, never the last token of the present sequence; they hold blocks all the same."""

    __slots__ = ("_held", "_hits", "_needy", "_store")

    def __init__(self, tasks: LLMTasks, blocks: int, block_size: int) -> None:
        super().__init__(tasks, blocks, block_size)
        self._store = BlockStore(blocks)
        self._held: dict[int, list[int]] = {}  # admission → its blocks
        self._hits: list[int] = []  # of the task that blocks_to_admit() was asked about last
        # Decoding admissions, in order, by the residue of the iterations in which they need a block.
        self._needy: list[dict[int, None]] = [{} for _ in range(block_size)]

    def blocks_to_admit(self, task: int) -> int:
        """Number of free blocks without which ``task`` cannot be admitted; sets ``hit_tokens``.

        Those of its present sequence which are not hits, and the hits that nobody holds.
        """
        length = self.tasks.prompt[task] + self.tasks.generated[task]
        store = self._store
        hits = self._hits = store.hits(self._keys(task, (length - 1) // self.block_size))
        self.hit_tokens = len(hits) * self.block_size
        return -(-length // self.block_size) - len(hits) + store.idle(hits)

    def take_chunk(self, admission: int, computed: int, chunk: int) -> None:
        """Take the blocks of the next ``chunk`` tokens of a prompt after ``computed`` ones."""
        blocks = self._held[admission]
        blocks += self._store.take(self.blocks_to_continue(computed, chunk))
        self.free = self._store.free
        self._remember_prompt(self.running[admission], blocks, computed, computed + chunk)
        self.backlog -= chunk

    def _keys(self, task: int, count: int) -> Iterator[Hashable]:
        """Yield the keys of the first ``count`` blocks, as far as they can have been remembered."""
        shared = self.tasks.block_keys(task, self.block_size)
        yield from shared[:count]
        if task in self.tasks.preemptions:
            for block in range(len(shared), count):
                yield (task, block)

    def _take_first(self, admission: int, task: int, chunk: int) -> None:
        store = self._store
        hits = self._hits
        store.share(hits)
        computed = self.hit_tokens + chunk
        blocks = hits + store.take(-(-computed // self.block_size) - len(hits))
        self._held[admission] = blocks
        self.free = store.free
        self._remember_prompt(task, blocks, self.hit_tokens, computed)

    def _remember_prompt(self, task: int, blocks: list[int], before: int, computed: int) -> None:
        """Let the prompt's blocks that became full be found by the request's keys."""
        keys = self.tasks.block_keys(task, self.block_size)
        for index in range(before // self.block_size, min(computed // self.block_size, len(keys))):
            self._store.remember(blocks[index], keys[index])

    def _take_one(self, admission: int) -> None:
        self._held[admission].append(self._store.take_one())
        self.free = self._store.free

    def _take_run(self, iteration: int, steps: int) -> None:
        held = self._held
        take_one = self._store.take_one
        size = self.block_size
        for now in range(iteration, iteration + steps):
            for admission in self._needy[now % size]:
                held[admission].append(take_one())
        self.free = self._store.free

    def _count_boundary(self, residue: int, by: int, admission: int) -> None:
        super()._count_boundary(residue, by, admission)
        if by > 0:
            self._needy[residue][admission] = None
        else:
            del self._needy[residue][admission]

    def _free_ended(self, admission: int, task: int) -> None:
        full = (self.tasks.prompt[task] + self.tasks.output[task] - 1) // self.block_size
        self._store.release(self._held.pop(admission), full)
        self.free = self._store.free

    def _free_preempted(self, admission: int, task: int, computed: int, known: int) -> None:
        store = self._store
        blocks = self._held.pop(admission)
        full = known // self.block_size
        for index, block in enumerate(blocks[:full]):
            if block not in store.keyed:
                store.remember(block, (task, index))
        store.release(blocks, full)
        self.free = store.free
