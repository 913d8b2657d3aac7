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

_SHIFT = 40
_MASK = (1 << _SHIFT) - 1


class LLMTasks:
    """The tasks of one LLM pool as columns indexed by task, shared by its clients; times in picoseconds."""

    __slots__ = (
        "cached",
        "finish_ps",
        "first_ps",
        "generated",
        "last_iteration",
        "output",
        "preemptions",
        "prompt",
        "start_ps",
    )

    def __init__(self, prompt: list[int], output: list[int]) -> None:
        count = len(prompt)
        self.prompt = prompt
        self.output = output
        self.start_ps = [-1] * count
        self.first_ps = [-1] * count
        self.finish_ps = [-1] * count
        self.generated = [0] * count
        self.last_iteration = [-1] * count
        self.preemptions: dict[int, int] = {}
        self.cached: dict[int, int] = {}


class RunningBatch:
    """Seats, blocks and running sums of one client.

    ``decodes`` sequences will decode in the next iteration, ``context`` is the sum of their computed tokens,
    ``iteration`` the number of decode iterations planned so far, ``free`` the free blocks, ``backlog`` the
    tokens still to be prefilled of waiting and prefilling sequences.
    """

    __slots__ = (
        "_admissions",
        "_boundaries",
        "_ends",
        "_resumed_ps",
        "abandoned_ps",
        "backlog",
        "block_size",
        "blocks",
        "context",
        "decodes",
        "free",
        "iteration",
        "last_decode_ps",
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
        self.iteration = 0
        self.last_decode_ps = -1
        self.running: dict[int, int] = {}
        self.prefilling: dict[int, int] = {}  # admission → tokens computed, of sequences still prefilling
        self.resume_gaps_ps: list[int] = []
        self.abandoned_ps: list[int] = []  # ends of prefills whose sequence was preempted before it decoded
        self._admissions = 0
        self._ends: list[int] = []  # heap of (last iteration, admission), packed
        self._boundaries = [0] * (2 * block_size)  # decodes by residue of the iterations that need a block
        self._resumed_ps: dict[int, int] = {}

    def admit(self, task: int, chunk: int, start_ps: int) -> int:
        """Give ``task`` a seat and the blocks of its first ``chunk`` tokens; return its admission number."""
        self._admissions = admission = self._admissions + 1
        self.running[admission] = task
        self.free -= -(-chunk // self.block_size)
        self.backlog -= chunk
        if self.tasks.start_ps[task] < 0:
            self.tasks.start_ps[task] = start_ps
        return admission

    def needed_blocks(self) -> int:
        """Number of blocks that the next decode iteration takes."""
        return self._boundaries[self.iteration % self.block_size]

    def steps_to_end(self) -> int:
        """Number of iterations up to and including the next one in which a sequence may end."""
        return (self._ends[0] >> _SHIFT) - self.iteration + 1

    def steps_with_blocks(self, limit: int) -> int:
        """Number of iterations, at most ``limit``, for which the free blocks suffice."""
        size = self.block_size
        free = self.free
        decodes = self.decodes
        cycles = free // decodes
        free -= cycles * decodes
        steps = cycles * size
        at = self.iteration % size
        while steps < limit and self._boundaries[at] <= free:
            free -= self._boundaries[at]
            at = at + 1 if at + 1 < size else 0
            steps += 1
        return min(steps, limit)

    def decode(self, steps: int, end_ps: int, *, take_blocks: bool) -> list[int]:
        """Let every decoding sequence gain ``steps`` tokens; return the admissions that end with the last one.

        ``end_ps`` is when the last of these steps ends; ``take_blocks`` is False if their blocks are taken.
        """
        if take_blocks:
            size = self.block_size
            free = self.free - steps // size * self.decodes
            rest = steps % size
            if rest:
                at = self.iteration % size
                free -= sum(self._boundaries[at : at + rest])
            self.free = free
        self.iteration = iteration = self.iteration + steps
        self.context += self.decodes * steps
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
                self._leave(iteration - 1, total)
                self.context -= total - 1
                tasks.finish_ps[task] = end_ps
                ended.append(admission)
        return ended

    def join(self, admission: int, task: int, end_ps: int) -> bool:
        """Record that a prefill is complete at ``end_ps`` and has emitted a token.

        Returns True where the sequence goes on to decode, False where that token was its last.
        """
        tasks = self.tasks
        generated = tasks.generated[task] + 1
        if generated == 1:
            tasks.first_ps[task] = end_ps
        else:
            self.resume_gaps_ps.append(end_ps - self._resumed_ps[task])
            self._resumed_ps[task] = end_ps
        output = tasks.output[task]
        iteration = self.iteration
        if generated == output:
            tasks.last_iteration[task] = iteration - 1
            tasks.finish_ps[task] = end_ps
            return False
        last = iteration + output - generated - 1
        tasks.last_iteration[task] = last
        prompt = tasks.prompt[task]
        size = self.block_size
        residue = (last + 2 - prompt - output) % size
        self._boundaries[residue] += 1
        self._boundaries[residue + size] += 1
        self.decodes += 1
        self.context += prompt + generated - 1
        heappush(self._ends, last << _SHIFT | admission)
        return True

    def release(self, admissions: list[int]) -> None:
        """Free seats and blocks of sequences whose last token has been delivered."""
        tasks = self.tasks
        size = self.block_size
        for admission in admissions:
            task = self.running.pop(admission, None)
            if task is not None:  # else: preempted while its last token was in flight
                self.free += (tasks.prompt[task] + tasks.output[task] - 2) // size + 1

    def note_peak(self, free: int) -> None:
        """Remember how few blocks were ever free."""
        used = self.blocks - free
        if used > self.peak:
            self.peak = used

    def make_room(self, preempted: list[int]) -> None:
        """Take the blocks of one iteration in order of admission, preempting from the tail where none is free.

        Appends the preempted tasks to ``preempted``, in order of preemption.
        """
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
            while not self.free:
                if self.preempt_last(preempted) == admission:
                    return
            self.free -= 1

    def preempt_last(self, preempted: list[int]) -> int:
        """Take seat and blocks from the sequence admitted last; return its admission number."""
        admission, task = self.running.popitem()
        tasks = self.tasks
        prompt = tasks.prompt[task]
        output = tasks.output[task]
        size = self.block_size
        last = tasks.last_iteration[task]
        computed = self.prefilling.pop(admission, None)
        if computed is None:
            remaining = last - self.iteration + 1
            computed = prompt + output - max(remaining, 0) - 1
            if remaining > 0:
                tasks.generated[task] = output - remaining
                self.backlog += 1
                self._leave(last, prompt + output)
                self.context -= computed
                joined = self._resumed_ps.get(task, tasks.first_ps[task])
                if joined >= self.last_decode_ps:
                    self.abandoned_ps.append(joined)
                self._resumed_ps[task] = max(joined, self.last_decode_ps)
        if tasks.finish_ps[task] < 0:
            self.backlog += computed
        self.free += -(-computed // size)
        tasks.preemptions[task] = tasks.preemptions.get(task, 0) + 1
        preempted.append(task)
        return admission

    def _leave(self, last: int, total: int) -> None:
        self.decodes -= 1
        residue = (last + 2 - total) % self.block_size
        self._boundaries[residue] -= 1
        self._boundaries[residue + self.block_size] -= 1
