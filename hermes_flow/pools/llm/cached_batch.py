"""Runs a batch with a prefix cache, so that later prompts can reuse its blocks.

Preempted sequences that are recomputed begin with what is still cached of them, and of those that come back from host
memory or from another client only the other blocks are copied. Prompts are found by what the
workload and the pipeline say about their blocks. What a sequence holds beyond them is its own, or is asked for by its
session's next turn: it matters only once the sequence is preempted or has ended, so it is named no earlier than that.
"""

from __future__ import annotations

from collections.abc import Sequence

from mypy_extensions import mypyc_attr

from hermes_flow.pools.llm.batch import RunningBatch
from hermes_flow.pools.llm.blocks import Found
from hermes_flow.pools.llm.decoding_batch import DecodingBatch
from hermes_flow.pools.llm.prefix_cache import BlockStore, Held, Run, common_blocks
from hermes_flow.pools.llm.tasks import LLMTasks


class Coming:
    """The reserved blocks of a task whose KV comes from another client.

    ``runs`` are those of its prompt, ``held`` are those that can be found. The first ``common`` blocks come with the
    KV of the task ``brings``, where it is not None, and are its blocks until then; ``here`` tells whether the task's
    own KV has come.
    """

    __slots__ = ("brings", "common", "held", "here", "runs")

    def __init__(self, runs: Sequence[Run], held: Held, common: int, brings: int | None) -> None:
        self.runs = runs
        self.held = held
        self.common = common
        self.brings = brings
        self.here = False


@mypyc_attr(allow_interpreted_subclasses=True)
class CachingBatch(RunningBatch):
    """Skips the computation of cached tokens, except a sequence's last token; cached blocks are held like others."""

    __slots__ = ("_coming", "_named", "_prompts", "_store")

    def __init__(self, tasks: LLMTasks, blocks: int, block_size: int) -> None:
        super().__init__(tasks, blocks, block_size)
        self._store = BlockStore(blocks)
        self._named: dict[int, Held] = {}  # admission → its first blocks, as far as they can be found
        self._prompts: dict[int, Sequence[Run]] = {}  # admission → the runs of its prompt
        self._coming: dict[int, Coming] = {}  # task with reserved blocks → what is known of them

    def join_client_of(self, other: DecodingBatch) -> None:
        """Become another micro-batch of the same client, with the same blocks."""
        assert isinstance(other, CachingBatch)
        super().join_client_of(other)
        self._store = other._store
        self._coming = other._coming

    def adopt_prefills(self, other: DecodingBatch) -> list[tuple[int, int]]:
        """Take over the sequences of another micro-batch that still prefill, with what their blocks hold."""
        assert isinstance(other, CachingBatch)
        adopted = super().adopt_prefills(other)
        for theirs, ours in adopted:
            self._named[ours] = other._named.pop(theirs)
            if theirs in other._prompts:
                self._prompts[ours] = other._prompts.pop(theirs)
        return adopted

    def find(self, task: int) -> Found:
        """Return the blocks that admitting a waiting task takes, and its cached blocks; changes nothing.

        The blocks are those of the task's present sequence which are not hits, and the hits that nobody holds.
        """
        tasks, size = self.tasks, self.block_size
        if self.reserved and task in self.reserved:
            return self._find_reserved(task)
        if task in tasks.kept:
            computed = tasks.kept[task]
            hits = self._store.hits(self._runs(task), computed // size)
            blocks = self._blocks_for(task, computed + 1)
            if tasks.asking and task in tasks.asking:
                common, brings = self._common(task, computed // size, hits)
                if brings is not None:
                    return blocks - common, 0, hits
            return blocks - hits.blocks + self._store.idle(hits), 0, hits
        length = tasks.prompt[task] + tasks.generated[task]
        hits = self._store.hits(self._runs(task), (length - 1) // size)
        blocks = self._blocks_for(task, length) - hits.blocks + self._store.idle(hits)
        loaded = tasks.preloaded.get(task, 0) if tasks.preloaded else 0
        return blocks, max(hits.blocks * size, loaded), hits

    def reserve(self, task: int) -> tuple[int, int | None]:
        """Take the blocks of a waiting task that are not found; see ``BlockCounts``.

        Those that another task of the same request waits for, as one of its branches, are shared as they come.
        """
        blocks, _, hits = self.find(task)
        common, brings = self._common(task, self.tasks.kept[task] // self.block_size, hits)
        runs = self.tasks.block_runs(task, self.block_size)
        self._coming[task] = Coming(runs, hits if brings is None else Held(), common, brings)
        if brings is None:
            blocks -= self._store.idle(hits)
            self._store.share(hits)
        self._take(blocks)
        self.reserved[task] = blocks
        self.tasks.reserve(task)
        self.note_peak()
        return common, brings

    def _common(self, task: int, full: int, hits: Held) -> tuple[int, int | None]:
        """Return how many of the first ``full`` blocks are here or come with another task, and which one that is."""
        common, brings = hits.blocks, None
        runs, coming = self.tasks.block_runs(task, self.block_size), self._coming
        for other in self.tasks.branches_of(task) if coming else ():
            if common >= full:
                break
            theirs = coming.get(other)
            if theirs is not None and not theirs.here:
                shared = min(common_blocks(runs, theirs.runs), full)
                if shared > common:
                    common, brings = shared, other
        return common, brings

    def fill(self, task: int) -> None:
        """Let the blocks that are full with the KV of a task be found, and held by those that waited for it."""
        coming, tasks = self._coming[task], self.tasks
        coming.here = True
        computed = tasks.prompt[task] - tasks.emits_first
        found = coming.held.blocks
        self._store.remember(coming.held, coming.runs, computed // self.block_size)
        self.reserved[task] -= coming.held.blocks - found
        for other in self._coming.values():
            if other.brings == task:
                other.brings = None
                other.held = coming.held.first(other.common)
                self._store.share(other.held)

    def unreserve(self, task: int) -> None:
        """Free the reserved blocks of a task that was taken back; what others wait for becomes that of the first."""
        coming, blank = self._coming.pop(task), self.reserved.pop(task)
        heir = None
        for other, waiting in self._coming.items():
            if waiting.brings == task and heir is None:
                heir, waiting.brings = other, None
                waiting.held = coming.held.first(waiting.common)
                self._store.share(waiting.held)
                kept = waiting.common - waiting.held.blocks
                self.reserved[other] += kept
                blank -= kept
            elif waiting.brings == task:
                waiting.brings = heir
        self._store.release(coming.held, unnamed=0, blank=blank)
        self.free = self._store.free
        self.tasks.reserved.discard(task)

    def _use_reserved(self, admission: int, task: int) -> None:
        super()._use_reserved(admission, task)
        coming = self._coming.pop(task)
        self._named[admission], self._prompts[admission] = coming.held, coming.runs
        self._remember_prompt(admission, self.tasks.prompt[task])

    def take_chunk(self, admission: int, computed: int, chunk: int) -> None:
        """Take the blocks of the next ``chunk`` tokens of a prompt after ``computed`` ones."""
        self._take(self.blocks_to_continue(computed, chunk))
        self._remember_prompt(admission, computed + chunk)
        self.backlog -= chunk

    def release(self, admissions: list[int]) -> None:
        """Free seats and blocks of sequences that have ended, in the order in which their step was planned."""
        super().release(sorted(admissions))

    def _runs(self, task: int) -> Sequence[Run]:
        """The blocks of a waiting task, as far as they can have been remembered."""
        if task in self.tasks.preemptions:
            return self._all_runs(task)
        return self.tasks.block_runs(task, self.block_size)

    def _all_runs(self, task: int) -> Sequence[Run]:
        """All blocks of a task: those that others may ask for, and after them its own."""
        runs = self.tasks.block_runs(task, self.block_size)
        return self._with_answer(task, runs, self.tasks.answer_runs(task, self.block_size))

    def _with_answer(self, task: int, runs: Sequence[Run], answer: Sequence[Run]) -> Sequence[Run]:
        """Return the blocks of a prompt, and those of its answer after them; without ``answer`` they are its own."""
        if answer:
            return [*runs, *answer]
        shared = sum([last - first for _, first, last in runs])
        last = (self.tasks.prompt[task] + self.tasks.output[task]) // self.block_size
        return [*runs, ((task,), shared, last)] if last > shared else runs

    def _take(self, blocks: int) -> None:
        self._store.take(blocks)
        self.free = self._store.free

    def _take_first(self, admission: int, task: int, found: Found, chunk: int) -> None:
        _, computed, hits = found
        self._store.share(hits)
        computed += chunk
        self._take(self._blocks_for(task, computed) - hits.blocks)
        self._named[admission] = hits
        self._prompts[admission] = self.tasks.block_runs(task, self.block_size)
        self._remember_prompt(admission, computed)

    def _take_entering(self, admission: int, task: int, computed: int) -> int:
        hits = self._store.hits(self._runs(task), computed // self.block_size)
        found = hits.blocks
        self._store.share(hits)
        self._take(self._blocks_for(task, computed + 1) - found)
        self._take_early(admission, computed)
        self._named[admission] = hits
        self._prompts[admission] = self.tasks.block_runs(task, self.block_size)
        self._remember_prompt(admission, computed)
        return found

    def _remember_prompt(self, admission: int, computed: int) -> None:
        """Let the prompt's blocks that are full by now be found."""
        runs = self._prompts[admission]
        if runs:
            self._store.remember(self._named[admission], runs, computed // self.block_size)

    def _take_one(self, admission: int) -> None:
        self._take(1)

    def _free_early(self) -> None:
        self._store.release(Held(), unnamed=0, blank=1)
        self.free = self._store.free

    def _take_run(self, iteration: int, steps: int, early: int) -> None:
        before = self.free
        super()._take_run(iteration, steps, early)
        if self.free != before:  # few steps begin a block
            self._store.take(before - self.free)

    def _free_ended(self, admission: int, task: int) -> None:
        computed = self.tasks.prompt[task] + self.tasks.output[task] - 1
        named, runs = self._named.pop(admission), self._prompts.pop(admission)
        answer = self.tasks.answer_runs(task, self.block_size)
        if answer:
            self._store.remember(named, self._with_answer(task, runs, answer), computed // self.block_size)
        self._release(named, task, computed, computed)

    def _free_preempted(self, admission: int, task: int, computed: int, known: int) -> None:
        named = self._named.pop(admission)
        self._prompts.pop(admission, None)
        self._store.remember(named, self._all_runs(task), known // self.block_size)
        self._release(named, task, computed, known)

    def _release(self, named: Held, task: int, computed: int, known: int) -> None:
        full = known // self.block_size
        blank = self._blocks_for(task, computed) - full
        self._store.release(named, unnamed=full - named.blocks, blank=blank)
        self.free = self._store.free
