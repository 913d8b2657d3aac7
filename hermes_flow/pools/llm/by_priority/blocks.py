"""The KV blocks of a client whose sequences are scheduled one by one."""

from __future__ import annotations

from collections.abc import Sequence as Listed

from hermes_flow.pools.llm.by_priority.sequence import Sequence
from hermes_flow.pools.llm.prefix_cache import BlockStore, Held, Run
from hermes_flow.pools.llm.tasks import LLMTasks

_NONE = Held()  # no cached blocks; nobody writes to it


class Blocks:
    """``count`` blocks of ``size`` tokens; every sequence takes ``beside`` blocks more than those of its tokens.

    With ``caches`` they are found again by their content. What a sequence holds beyond the prompt that others may
    have is named no earlier than it leaves, because nobody can ask for it before.
    """

    __slots__ = ("_beside", "_caches", "_store", "_tasks", "count", "peak", "size")

    def __init__(self, tasks: LLMTasks, count: int, size: int, beside: int, *, caches: bool) -> None:
        self._tasks = tasks
        self._store = BlockStore(count)
        self._beside = beside
        self._caches = caches
        self.count = count
        self.size = size
        self.peak = 0

    @property
    def free(self) -> int:
        """Blocks that no sequence holds."""
        return self._store.free

    def find(self, sequence: Sequence) -> tuple[int, Held]:
        """Return the free blocks without which a waiting sequence cannot be admitted, and its cached blocks."""
        blocks = -(-sequence.whole // self.size) + self._beside
        if not self._caches:
            return blocks, _NONE
        runs = self._all_runs(sequence) if sequence.preempted else self._prompt_runs(sequence)
        hits = self._store.hits(runs, (sequence.whole - 1) // self.size)
        return blocks - hits.blocks + self._store.idle(hits), hits

    def admit(self, sequence: Sequence, hits: Held) -> None:
        """Let a waiting sequence begin with its cached blocks, as ``find`` has returned them."""
        self._store.share(hits)
        self._store.take(self._beside)
        sequence.named = hits if self._caches else _NONE
        sequence.held = hits.blocks
        sequence.computed = sequence.known = hits.blocks * self.size

    def extend(self, sequence: Sequence, tokens: int) -> bool:
        """Take the blocks of its next ``tokens``; return False, and take nothing, if they are not free."""
        end = sequence.computed + tokens
        more = max(0, -(-end // self.size) - sequence.held)
        if more > self._store.free:
            return False
        self._store.take(more)
        sequence.held += more
        sequence.known = max(sequence.known, min(end, sequence.length))
        if self._caches and sequence.prefilling:
            self._store.remember(sequence.named, self._prompt_runs(sequence), sequence.known // self.size)
        return True

    def free_ended(self, sequence: Sequence) -> None:
        """Free the blocks of a sequence that is over; a later prompt may go on from its answer."""
        computed = sequence.prompt + sequence.output - 1
        if self._caches:
            runs, answer = self._prompt_runs(sequence), self._tasks.answer_runs(sequence.task, self.size)
            if answer:
                self._store.remember(sequence.named, [*runs, *answer], computed // self.size)
        self._release(sequence, computed)

    def free_preempted(self, sequence: Sequence) -> None:
        """Free the blocks of a sequence that is thrown out or withdrawn; it may find its full ones again."""
        in_flight = sequence.expected - sequence.out
        known = max(sequence.known, sequence.computed - in_flight)
        if self._caches:
            self._store.remember(sequence.named, self._all_runs(sequence), known // self.size)
        self._release(sequence, known)

    def note_peak(self) -> None:
        """Update the highest number of blocks in use."""
        used = self.count - self._store.free
        if used > self.peak:
            self.peak = used

    def _release(self, sequence: Sequence, known: int) -> None:
        """Return its blocks: those that can be found, full ones without a name, and blank ones."""
        blank, unnamed = sequence.held, 0
        if self._caches:
            full = known // self.size
            blank, unnamed = sequence.held - full, full - sequence.named.blocks
        self._store.release(sequence.named, unnamed=unnamed, blank=blank + self._beside)
        sequence.named = Held()
        sequence.held = 0

    def _prompt_runs(self, sequence: Sequence) -> Listed[Run]:
        return self._tasks.block_runs(sequence.task, self.size)

    def _all_runs(self, sequence: Sequence) -> Listed[Run]:
        """Return the blocks that others may ask for, and after them its own."""
        runs, answer = self._prompt_runs(sequence), self._tasks.answer_runs(sequence.task, self.size)
        if answer:
            return [*runs, *answer]
        shared = sum([last - first for _, first, last in runs])
        last = (sequence.prompt + sequence.output) // self.size
        return [*runs, ((sequence.task,), shared, last)] if last > shared else runs
