"""Counts the KV blocks of one LLM client: the free ones, and those that the next iterations need.

A decoding sequence needs a new block in the iterations of one residue modulo the block size, so a count of sequences
by residue tells what any run of iterations takes. Which blocks they are does not matter here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from mypy_extensions import mypyc_attr

from hermes_flow.pools.llm.prefix_cache import Held
from hermes_flow.pools.llm.tasks import LLMTasks

# What a batch finds for a waiting task: (free blocks without which it cannot be admitted, tokens of its present
# sequence that are computed already, the cached blocks that hold them).
Found: TypeAlias = tuple[int, int, Held]

NO_BLOCKS = Held()  # no cached blocks; nobody writes to it


@mypyc_attr(allow_interpreted_subclasses=True)
class BlockCounts:
    """``free`` of ``blocks`` KV blocks, and the highest number in use so far (``peak``).

    ``decodes`` sequences will decode in the next iteration, and ``iteration`` is how many were planned so far.
    ``reserved`` has the blocks of waiting tasks whose KV comes from another client. Subclasses name blocks, or take
    those of whole answers.
    """

    __slots__ = (
        "_boundaries",
        "_early",
        "_padding",
        "_taken",
        "block_size",
        "blocks",
        "decodes",
        "free",
        "iteration",
        "peak",
        "reserved",
        "tasks",
    )

    def __init__(self, tasks: LLMTasks, blocks: int, block_size: int) -> None:
        self.tasks = tasks
        self.blocks = blocks
        self.block_size = block_size
        self.free = blocks
        self.peak = 0
        self.decodes = 0
        self.iteration = 0
        self.reserved: dict[int, int] = {}  # waiting task → blocks that it has
        self._padding = 0  # blocks that a gang holds beside those of its members
        self._early: set[int] = set()  # admissions that hold the block of their next token already
        self._taken = 0  # iterations whose blocks are taken already
        self._boundaries = [0] * (2 * block_size)  # decodes by residue of the iterations that need a block

    def find(self, task: int) -> Found:
        """Return the blocks that admitting a waiting task takes, and its computed tokens; changes nothing.

        The blocks are those of the task's present sequence: its prompt and what it has generated so far.
        """
        tasks = self.tasks
        kept = tasks.kept
        if self.reserved and task in self.reserved:
            return self._find_reserved(task)
        if kept and task in kept:
            return kept[task] // self.block_size + 1, 0, NO_BLOCKS
        blocks = -(-(tasks.prompt[task] + tasks.generated[task]) // self.block_size)
        return blocks, tasks.preloaded.get(task, 0) if tasks.preloaded else 0, NO_BLOCKS

    def _find_reserved(self, task: int) -> Found:
        """Return that a task with reserved blocks needs no more, and its computed tokens."""
        return 0, self.tasks.preloaded.get(task, 0) if self.tasks.preloaded else 0, NO_BLOCKS

    def blocks_to_continue(self, computed: int, chunk: int) -> int:
        """Number of blocks that the next ``chunk`` tokens of a prompt take after ``computed`` ones."""
        size = self.block_size
        return -(-(computed + chunk) // size) - -(-computed // size)

    def needed_blocks(self) -> int:
        """Number of blocks that the next decode iteration takes."""
        return self._boundaries[self.iteration % self.block_size] - len(self._early)

    def take_iteration(self) -> None:
        """Take the blocks of the next iteration, which must be free, unless they are taken already."""
        if not self._taken:
            self._take_run(self.iteration, 1, len(self._early))
            self._taken = 1
        if self._early:
            self._early.clear()

    def take_iterations(self, count: int) -> None:
        """Take the blocks of the next ``count`` iterations, which are free, as far as they are not taken already."""
        taken = self._taken
        if count > taken:
            self._take_run(self.iteration + taken, count - taken, 0 if taken else len(self._early))
            self._taken = count
        self._early.clear()

    def steps_with_blocks(self, limit: int) -> int:
        """Number of iterations, at most ``limit``, for which the free blocks suffice."""
        size = self.block_size
        free = self.free
        decodes = self.decodes
        steps = self._taken
        if not steps:
            free += len(self._early)
        cycles = free // decodes
        free -= cycles * decodes
        at = (self.iteration + steps) % size
        steps += cycles * size
        while steps < limit and self._boundaries[at] <= free:
            free -= self._boundaries[at]
            at = at + 1 if at + 1 < size else 0
            steps += 1
        return min(steps, limit)

    def held_at_end(self, task: int) -> int:
        """Number of blocks of a sequence that has ended; its last token is never computed."""
        return (self.tasks.prompt[task] + self.tasks.output[task] - 2) // self.block_size + 1

    def reserve(self, task: int) -> tuple[int, int | None]:
        """Take the blocks of a waiting task whose KV another client has, as ``find`` has found them free.

        Return how many of them hold their tokens already, or will with the KV of another task, which is returned too.
        """
        blocks = self.find(task)[0]
        self.free -= blocks
        self.reserved[task] = blocks
        self.tasks.reserve(task)
        self.note_peak()
        return 0, None

    def fill(self, task: int) -> None:
        """Note that the KV of a task with reserved blocks is here."""

    def unreserve(self, task: int) -> None:
        """Free the reserved blocks of a task that was taken back."""
        self.free += self.reserved.pop(task)
        self.tasks.reserved.discard(task)

    def _give_back(self, task: int, tokens: int) -> None:
        """Free the reserved blocks of a prompt behind its first ``tokens``, which it takes as it goes on."""
        self.tasks.contexts.discard(task)
        self.free += self.reserved[task] - -(-tokens // self.block_size)

    def _use_reserved(self, admission: int, task: int) -> None:
        """Give a sequence that is admitted, or enters, the blocks that are reserved for it."""
        del self.reserved[task]
        self.tasks.reserved.remove(task)

    def hold_gang(self, gang: Sequence[int], blocks: int) -> None:
        """Let a gang of all running tasks hold ``blocks`` blocks until it is released."""
        self.free = self.blocks - blocks
        self._padding = blocks - sum(self.held_at_end(task) for task in gang)

    def note_peak(self) -> None:
        """Update the highest number of blocks in use."""
        used = self.blocks - self.free
        if used > self.peak:
            self.peak = used

    # What subclasses change.

    def _count_boundary(self, residue: int, by: int, admission: int) -> None:
        boundaries = self._boundaries
        boundaries[residue] += by
        boundaries[residue + self.block_size] += by

    def _take_first(self, admission: int, task: int, found: Found, chunk: int) -> None:
        """Take the blocks of a sequence's first chunk."""
        self.free -= -(-(found[1] + chunk) // self.block_size)

    def _blocks_for(self, task: int, tokens: int) -> int:
        """Number of blocks that a sequence of ``tokens`` tokens holds."""
        return -(-tokens // self.block_size)

    def _take_entering(self, admission: int, task: int, computed: int) -> int:
        """Take the blocks of a sequence that enters, and that of its next token.

        Returns how many of them hold its tokens already.
        """
        self.free -= computed // self.block_size + 1
        self._take_early(admission, computed)
        return 0

    def _take_early(self, admission: int, computed: int) -> None:
        """Take note of a block that a sequence that enters holds for its next token alone."""
        if not computed % self.block_size:
            self._early.add(admission)

    def _free_early(self) -> None:
        """Free a block that was taken for the next token of a preempted sequence."""
        self.free += 1

    def _take_one(self, admission: int) -> None:
        """Take one block for a decoding sequence."""
        self.free -= 1

    def _take_run(self, iteration: int, steps: int, early: int) -> None:
        """Take the blocks of ``steps`` iterations from ``iteration`` on, but for ``early`` that are taken."""
        size = self.block_size
        if steps == 1:  # most often
            self.free += early - self._boundaries[iteration % size]
            return
        free = self.free + early - steps // size * self.decodes
        rest = steps % size
        if rest:
            at = iteration % size
            free -= sum(self._boundaries[at : at + rest])
        self.free = free

    def _free_ended(self, admission: int, task: int) -> None:
        """Free the blocks of a sequence that has ended."""
        self.free += self.held_at_end(task)

    def _free_preempted(self, admission: int, task: int, computed: int, known: int) -> None:
        """Free the blocks of a preempted sequence of ``computed`` tokens; ``known`` are not in flight."""
        self.free += -(-computed // self.block_size)
