"""The sequences running on one LLM client, as running sums: a decode step costs O(1), not O(batch).

Every decoding sequence gains one token per decode iteration, so their sum of contexts, their next block
boundaries and their ends all follow from the iteration counter: the sum grows by their number; a sequence
needs a new block in the iterations of one residue modulo the block size; it ends in an iteration known when
it joins. Only joining, ending and preemption touch a single sequence.

Sequences are named by their admission number; ``running`` is in order of admission and holds, besides the
decoding ones, the one that is still prefilling and those whose last token is planned but not delivered.
"""

from __future__ import annotations

from heapq import heappop, heappush

from hermes_flow.clients.tasks import LLMTasks

_SHIFT = 40
_MASK = (1 << _SHIFT) - 1


class RunningBatch:
    """Seats, blocks and running sums of one client.

    ``decodes`` sequences will decode in the next iteration, ``context`` is the sum of their computed tokens,
    ``iteration`` the number of decode iterations planned so far, ``free`` the free blocks, ``backlog`` the
    tokens still to be computed of waiting and prefilling sequences (one of those whose KV only has to come),
    ``copy_ps`` the time of the copies of the step being planned. Preempted sequences are recomputed; subclasses
    preempt otherwise, or remember prefixes.
    """

    __slots__ = (
        "_admissions",
        "_boundaries",
        "_decode_planned_ps",
        "_earlier_decode_ps",
        "_early",
        "_ends",
        "_last_gain",
        "_last_token_ps",
        "_taken",
        "abandoned_ps",
        "backlog",
        "begun",
        "block_size",
        "blocks",
        "context",
        "copy_ps",
        "decodes",
        "entering",
        "export_ps",
        "free",
        "hit_tokens",
        "import_ps",
        "iteration",
        "last_decode_ps",
        "now_ps",
        "peak",
        "prefilling",
        "resume_gaps_ps",
        "running",
        "tasks",
    )

    def __init__(self, tasks: LLMTasks, blocks: int, block_size: int) -> None:
        self.tasks = tasks
        self.blocks = blocks
        self.block_size = block_size
        self.free = blocks
        self.peak = 0
        self.backlog = 0
        self.decodes = 0
        self.context = 0
        self.copy_ps = 0
        self.export_ps = 0  # to hand over the KV of a prompt that is computed
        self.import_ps = 0  # to take over that of a sequence that comes computed
        self.begun: list[int] = []  # tasks admitted for the first time since the last step was committed
        self.entering: set[int] = set()  # tasks that entered and have not decoded here yet
        self.hit_tokens = 0  # computed already, of the task that blocks_to_admit() was asked about last
        self.iteration = 0
        self.last_decode_ps = -1
        self._earlier_decode_ps = -1
        self._last_gain = 1  # tokens that each sequence gained in the last step
        self._decode_planned_ps = -1
        self.now_ps = 0  # the planning instant
        self.running: dict[int, int] = {}
        self.prefilling: dict[int, int] = {}  # admission → tokens computed, of sequences still prefilling
        self.resume_gaps_ps: list[int] = []
        self.abandoned_ps: list[int] = []  # ends of prefills whose sequence was preempted before it decoded
        self._admissions = 0
        self._early: set[int] = set()  # admissions that hold the block of their next token already
        self._taken = 0  # 1 if the blocks of the next iteration are taken already
        self._ends: list[int] = []  # heap of (last iteration, admission), packed
        self._boundaries = [0] * (2 * block_size)  # decodes by residue of the iterations that need a block
        self._last_token_ps: dict[int, int] = {}

    def join_client_of(self, other: RunningBatch) -> None:
        """Become another micro-batch of the same client: what became of a task is known to both."""
        self._last_token_ps = other._last_token_ps
        self.resume_gaps_ps = other.resume_gaps_ps

    def adopt_prefills(self, other: RunningBatch) -> list[tuple[int, int]]:
        """Take over the sequences of another micro-batch that still prefill; return (their, our) admissions."""
        adopted = []
        for theirs, computed in other.prefilling.items():
            self._admissions = ours = self._admissions + 1
            self.running[ours] = other.running.pop(theirs)
            self.prefilling[ours] = computed
            adopted.append((theirs, ours))
        other.prefilling.clear()
        return adopted

    # Admission and prefill.

    def blocks_to_admit(self, task: int) -> int:
        """Number of free blocks without which ``task`` cannot be admitted: those of its present sequence."""
        kept = self.tasks.kept
        if kept and task in kept:
            return kept[task] // self.block_size + 1
        preloaded = self.tasks.preloaded
        if preloaded is not None:
            self.hit_tokens = preloaded.get(task, 0)
        return -(-(self.tasks.prompt[task] + self.tasks.generated[task]) // self.block_size)

    def admit(self, task: int, chunk: int, start_ps: int) -> int:
        """Give ``task`` a seat and the blocks of its first ``chunk`` tokens; return its admission number.

        ``blocks_to_admit`` was asked about the task just before.
        """
        self._admissions = admission = self._admissions + 1
        self.running[admission] = task
        self._take_first(admission, task, chunk)
        self.backlog -= chunk + self.hit_tokens
        tasks = self.tasks
        if tasks.start_ps[task] < 0:
            tasks.start_ps[task] = start_ps
            self.begun.append(task)
            if self.hit_tokens:
                tasks.cached[task] = self.hit_tokens
                if tasks.preloaded:
                    del tasks.preloaded[task]  # once preempted, it is gone
                    self.copy_ps += self.import_ps
        return admission

    def blocks_to_continue(self, computed: int, chunk: int) -> int:
        """Number of blocks that the next ``chunk`` tokens of a prompt take after ``computed`` ones."""
        size = self.block_size
        return -(-(computed + chunk) // size) - -(-computed // size)

    def take_chunk(self, admission: int, computed: int, chunk: int) -> None:
        """Take the blocks of the next ``chunk`` tokens of a prompt after ``computed`` ones."""
        self.free -= self.blocks_to_continue(computed, chunk)
        self.backlog -= chunk

    def exporting_ps(self, completed: list[tuple[int, int]]) -> int:
        """Return what handing over the KV of complete prompts takes: of those that another client awaits."""
        staying = self.tasks.staying
        return self.export_ps * sum([task not in staying for _, task in completed])

    def is_computed(self, task: int) -> bool:
        """Whether the KV of a waiting task lies elsewhere (another client, host memory) and only has to come."""
        return task in self.tasks.kept

    def enter(self, task: int, start_ps: int) -> None:
        """Give a task that is computed already a seat and blocks; it takes part in the next decode iteration.

        ``blocks_to_admit`` was asked about the task just before.
        """
        tasks = self.tasks
        self._admissions = admission = self._admissions + 1
        self.running[admission] = task
        computed = tasks.kept.pop(task)
        self._take_entering(admission, task, computed)
        self.backlog -= 1
        if tasks.start_ps[task] < 0:
            tasks.start_ps[task] = start_ps
            self.copy_ps += self.import_ps
        self._start_decoding(admission, task, tasks.generated[task])
        self.entering.add(task)

    def last_token_ps(self, task: int) -> int:
        """When a sequence that enters emitted its last token so far."""
        return self._last_token_ps.get(task, self.tasks.first_ps[task])

    def join(self, admission: int, task: int, end_ps: int) -> bool:
        """Record that a prefill is complete at ``end_ps`` and has emitted a token.

        Returns True where the sequence goes on to decode, False where that token was its last.
        """
        tasks = self.tasks
        generated = tasks.generated[task] + 1
        if generated == 1:
            tasks.first_ps[task] = end_ps
        else:
            self.resume_gaps_ps.append(end_ps - self._last_token_ps[task])
            self._last_token_ps[task] = end_ps
        if generated == tasks.output[task]:
            tasks.last_iteration[task] = self.iteration - 1
            tasks.finish_ps[task] = end_ps
            return False
        self._start_decoding(admission, task, generated)
        return True

    # Decoding.

    def needed_blocks(self) -> int:
        """Number of blocks that the next decode iteration takes."""
        return self._boundaries[self.iteration % self.block_size] - len(self._early)

    def take_or_preempt(self, preempted: list[int]) -> None:
        """Take the blocks of the next iteration; where they are not free, preempt from the tail.

        Blocks are taken in order of admission; the preempted tasks are appended in order of preemption.
        """
        if self.needed_blocks() > self.free:
            self._make_room(preempted)
            self._taken = 1 if self.decodes else 0
        elif self.decodes:
            self.take_iteration()

    def take_iteration(self) -> None:
        """Take the blocks of the next iteration, which are free, unless they are taken already."""
        if not self._taken:
            self._take_run(self.iteration, 1, len(self._early))
            self._taken = 1
        self._early.clear()

    def steps_to_end(self) -> int:
        """Number of iterations up to and including the next one in which a sequence may end."""
        return (self._ends[0] >> _SHIFT) - self.iteration + 1

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

    def decode_again(self, end_ps: int) -> list[int]:
        """Let every decoding sequence gain a further token in the step that was decided last."""
        earlier, gained = self._earlier_decode_ps, self._last_gain
        ended = self.decode(1, end_ps)
        self._earlier_decode_ps, self._last_gain = earlier, gained + 1
        return ended

    def decode(self, steps: int, end_ps: int) -> list[int]:
        """Let every decoding sequence gain ``steps`` tokens; return the admissions that end with the last one.

        Takes the blocks that are not taken yet. ``end_ps`` is when the last of these steps ends.
        """
        taken = self._taken
        if steps > taken:
            self._take_run(self.iteration + taken, steps - taken, 0 if taken else len(self._early))
        self._taken = 0
        if self._early:
            self._early.clear()
        if self.entering:
            self.entering.clear()
        self.iteration = iteration = self.iteration + steps
        self.context += self.decodes * steps
        self._decode_planned_ps = self.now_ps if steps == 1 else -1
        self._earlier_decode_ps = self.last_decode_ps
        self._last_gain = 1
        self.last_decode_ps = end_ps
        used = self.blocks - self.free
        if used > self.peak:
            self.peak = used
        ends = self._ends
        ended: list[int] = []
        while ends and ends[0] >> _SHIFT < iteration:
            admission = heappop(ends) & _MASK
            task = self.running.get(admission)
            if task is not None:  # else: preempted since
                tasks = self.tasks
                total = tasks.prompt[task] + tasks.output[task]
                self._leave(admission, iteration - 1, total)
                self.context -= total - 1
                tasks.finish_ps[task] = end_ps
                ended.append(admission)
        return ended

    # Leaving.

    def release(self, admissions: list[int]) -> None:
        """Free seats and blocks of sequences whose last token has been delivered."""
        for admission in admissions:
            task = self.running.pop(admission, None)
            if task is not None:  # else: preempted while its last token was in flight
                self._free_ended(admission, task)

    def held_at_end(self, task: int) -> int:
        """Number of blocks of a sequence that has ended; its last token is never computed."""
        return (self.tasks.prompt[task] + self.tasks.output[task] - 2) // self.block_size + 1

    def preempt_last(self, preempted: list[int]) -> int:
        """Take seat and blocks from the sequence admitted last; return its admission number."""
        admission, task = self.running.popitem()
        tasks = self.tasks
        prompt = tasks.prompt[task]
        output = tasks.output[task]
        computed = self.prefilling.pop(admission, None)
        known = computed or 0
        if computed is not None:
            self.backlog += computed
        else:
            last = tasks.last_iteration[task]
            remaining = last - self.iteration + 1
            computed = prompt + output - max(remaining, 0) - 1
            joined = self._last_token_ps.get(task, tasks.first_ps[task])
            if remaining > 0:
                self._leave(admission, last, prompt + output)
                self.context -= computed
                tasks.generated[task] = output - remaining
                if task in self.entering:
                    self.abandoned_ps.append(joined)
                    self._last_token_ps[task] = joined
                else:
                    if joined >= self.last_decode_ps:
                        self.abandoned_ps.append(joined)
                    self._last_token_ps[task] = max(joined, self.last_decode_ps)
                self.backlog += self._keep(task, computed)
            known = computed
            if task not in self.entering and not self._knows_all(joined):
                known -= self._last_gain + min(remaining, 0)  # less, where it ended within the step
            self.entering.discard(task)
        if admission in self._early:
            self._early.remove(admission)
            self._free_early()
        self._free_preempted(admission, task, computed, known)
        tasks.preemptions[task] = tasks.preemptions.get(task, 0) + 1
        preempted.append(task)
        return admission

    def _knows_all(self, joined_ps: int) -> bool:
        """Whether all computed tokens of a decoding sequence that joined at ``joined_ps`` are known by now.

        The last of them is not, if the step that computes it is not over and was planned before the step that
        emitted it was.
        """
        if joined_ps >= self.last_decode_ps or self.last_decode_ps <= self.now_ps:
            return True
        return max(joined_ps, self._earlier_decode_ps) <= self._decode_planned_ps

    def note_peak(self) -> None:
        """Remember how many blocks were ever in use."""
        used = self.blocks - self.free
        if used > self.peak:
            self.peak = used

    # What subclasses change.

    def _make_room(self, preempted: list[int]) -> None:
        """Take the blocks of one iteration in order of admission, preempting from the tail where none is free."""
        tasks = self.tasks
        size = self.block_size
        iteration = self.iteration
        for admission, task in list(self.running.items()):
            if admission not in self.running:
                break
            last = tasks.last_iteration[task]
            if admission in self.prefilling or last < iteration:
                continue
            if (last + 2 - tasks.prompt[task] - tasks.output[task] - iteration) % size:
                continue
            if admission in self._early:
                self._early.remove(admission)
                continue
            while not self.free:
                if self.preempt_last(preempted) == admission:
                    return
            self._take_one(admission)

    def _start_decoding(self, admission: int, task: int, generated: int) -> None:
        tasks = self.tasks
        prompt = tasks.prompt[task]
        output = tasks.output[task]
        last = self.iteration + output - generated - 1
        tasks.last_iteration[task] = last
        self._count_boundary((last + 2 - prompt - output) % self.block_size, 1, admission)
        self.decodes += 1
        self.context += prompt + generated - 1
        heappush(self._ends, last << _SHIFT | admission)

    def _leave(self, admission: int, last: int, total: int) -> None:
        self.decodes -= 1
        self._count_boundary((last + 2 - total) % self.block_size, -1, admission)

    def _count_boundary(self, residue: int, by: int, admission: int) -> None:
        boundaries = self._boundaries
        boundaries[residue] += by
        boundaries[residue + self.block_size] += by

    def _take_first(self, admission: int, task: int, chunk: int) -> None:
        """Take the blocks of a sequence's first chunk."""
        self.free -= -(-(self.hit_tokens + chunk) // self.block_size)

    def _take_entering(self, admission: int, task: int, computed: int) -> None:
        """Take the blocks of a sequence that enters, and that of its next token."""
        self.free -= computed // self.block_size + 1
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

    def _keep(self, task: int, computed: int) -> int:
        """A decoding sequence is preempted: return how many tokens it must prefill again."""
        return computed + 1
