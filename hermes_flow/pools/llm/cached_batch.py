"""A batch with a prefix cache: what its blocks hold can be found again.

Preempted sequences are recomputed, but begin with what is still cached of them. Prompts are found by the
request's block keys. What a sequence holds beyond them is its own, or is asked for by its session's next turn:
it matters only once the sequence is preempted or has ended, so it is given keys no earlier than that.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from hermes_flow.pools.llm.batch import RunningBatch
from hermes_flow.pools.llm.blocks import Found
from hermes_flow.pools.llm.prefix_cache import BlockStore
from hermes_flow.pools.llm.tasks import LLMTasks


class CachingBatch(RunningBatch):
    """Hits spare computing, never the last token of the present sequence; they hold blocks all the same."""

    __slots__ = ("_named", "_store")

    def __init__(self, tasks: LLMTasks, blocks: int, block_size: int) -> None:
        super().__init__(tasks, blocks, block_size)
        self._store = BlockStore(blocks)
        self._named: dict[int, list[int]] = {}  # admission → its first blocks, as far as they can be found

    def join_client_of(self, other: RunningBatch) -> None:
        """Become another micro-batch of the same client, with the same blocks."""
        assert isinstance(other, CachingBatch)
        super().join_client_of(other)
        self._store = other._store

    def adopt_prefills(self, other: RunningBatch) -> list[tuple[int, int]]:
        """Take over the sequences of another micro-batch that still prefill, with what their blocks hold."""
        assert isinstance(other, CachingBatch)
        adopted = super().adopt_prefills(other)
        for theirs, ours in adopted:
            self._named[ours] = other._named.pop(theirs)
        return adopted

    def find(self, task: int) -> Found:
        """Return what the admission of a waiting task needs now, and its hits; changes nothing.

        The blocks are those of the task's present sequence which are not hits, and the hits that nobody holds.
        """
        if task in self.tasks.kept:
            return super().find(task)
        length = self.tasks.prompt[task] + self.tasks.generated[task]
        store = self._store
        hits = store.hits(self._keys(task, (length - 1) // self.block_size))
        blocks = -(-length // self.block_size) - len(hits) + store.idle(hits)
        return blocks, len(hits) * self.block_size, hits

    def take_chunk(self, admission: int, computed: int, chunk: int) -> None:
        """Take the blocks of the next ``chunk`` tokens of a prompt after ``computed`` ones."""
        self._take(self.blocks_to_continue(computed, chunk))
        self._remember_prompt(admission, self.running[admission], computed + chunk)
        self.backlog -= chunk

    def _keys(self, task: int, count: int) -> Sequence[Hashable]:
        """The keys of the first ``count`` blocks, as far as they can have been remembered."""
        shared = self.tasks.block_keys(task, self.block_size)
        if task in self.tasks.preemptions:
            return [*shared[:count], *self._later_keys(task, len(shared), count)]
        return shared[:count]

    def _later_keys(self, task: int, first: int, last: int) -> list[Hashable]:
        """The keys of blocks ``first`` … ``last − 1``, none of which ``block_keys`` names."""
        answer = self.tasks.answer_keys(task, self.block_size)
        if not answer:
            return [(task, block) for block in range(first, last)]
        begin = len(self.tasks.block_keys(task, self.block_size))
        return [answer[block - begin] for block in range(first, last)]

    def _take(self, blocks: int) -> None:
        self._store.take(blocks)
        self.free = self._store.free

    def _take_first(self, admission: int, task: int, found: Found, chunk: int) -> None:
        _, computed, hits = found
        self._store.share(hits)
        computed += chunk
        self._take(-(-computed // self.block_size) - len(hits))
        self._named[admission] = hits
        self._remember_prompt(admission, task, computed)

    def _take_entering(self, admission: int, task: int, computed: int) -> None:
        before = self.free
        super()._take_entering(admission, task, computed)
        self._store.take(before - self.free)
        self._named[admission] = []

    def _remember_prompt(self, admission: int, task: int, computed: int) -> None:
        """Let the prompt's blocks that are full by now be found by the request's keys."""
        named = self._named[admission]
        keys = self.tasks.block_keys(task, self.block_size)
        remember = self._store.remember
        for key in keys[len(named) : computed // self.block_size]:
            named.append(remember(key))

    def _take_one(self, admission: int) -> None:
        self._take(1)

    def _free_early(self) -> None:
        self._store.release([], unnamed=0, blank=1)
        self.free = self._store.free

    def _take_run(self, iteration: int, steps: int, early: int) -> None:
        before = self.free
        super()._take_run(iteration, steps, early)
        self._store.take(before - self.free)

    def _free_ended(self, admission: int, task: int) -> None:
        computed = self.tasks.prompt[task] + self.tasks.output[task] - 1
        named = self._named.pop(admission)
        if self.tasks.answer_keys(task, self.block_size):
            self._remember_later(named, task, computed)
        self._release(named, computed, computed)

    def _free_preempted(self, admission: int, task: int, computed: int, known: int) -> None:
        named = self._named.pop(admission)
        self._remember_later(named, task, known)
        self._release(named, computed, known)

    def _remember_later(self, named: list[int], task: int, known: int) -> None:
        """Let the other full blocks of a sequence of ``known`` tokens be found too."""
        remember = self._store.remember
        named += [remember(key) for key in self._later_keys(task, len(named), known // self.block_size)]

    def _release(self, named: list[int], computed: int, known: int) -> None:
        full = known // self.block_size
        self._store.release(named, unnamed=full - len(named), blank=-(-computed // self.block_size) - full)
        self.free = self._store.free
