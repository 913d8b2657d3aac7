"""The batch of a client that only counts its blocks: what ``RunningBatch`` does, without calls in every step.

Most simulations spend most of their time here. So the methods that every step and every sequence needs stand here in
one piece, where ``RunningBatch`` calls what other batches replace. A test holds both to the same results.
"""

from __future__ import annotations

from heapq import heappop, heappush

from mypy_extensions import mypyc_attr

from hermes_flow.pools.llm.batch import RunningBatch
from hermes_flow.pools.llm.blocks import Found
from hermes_flow.pools.llm.decoding_batch import ADMISSION_BITS, ADMISSION_MASK


@mypyc_attr(allow_interpreted_subclasses=True)
class PlainBatch(RunningBatch):
    """A batch without prefix cache, reservations and blocks beside those of tokens."""

    __slots__ = ()

    def admit(self, task: int, found: Found, chunk: int, start_ps: int) -> int:
        """Give ``task`` a seat and the blocks of its first ``chunk`` tokens; see ``RunningBatch``."""
        if found[1]:
            return super().admit(task, found, chunk, start_ps)
        self._admissions = admission = self._admissions + 1
        self.running[admission] = task
        self.free -= -(-chunk // self.block_size)
        self.backlog -= chunk
        starts = self.tasks.start_ps
        if starts[task] < 0:
            starts[task] = start_ps
            self.begun.append(task)
        return admission

    def take_iteration(self) -> None:
        """Take the blocks of the next iteration, which must be free, unless they are taken already."""
        early = self._early
        if not self._taken:
            self._taken = 1
            self.free -= self._boundaries[self.iteration % self.block_size]
            if early:
                self.free += len(early)
        if early:
            early.clear()

    def join(self, admission: int, task: int, end_ps: int) -> bool:
        """Record that a prefill is complete at ``end_ps`` and has emitted a token; see ``RunningBatch``."""
        tasks = self.tasks
        output = tasks.output[task]
        if tasks.generated[task] or output < 1:
            return super().join(admission, task, end_ps)
        tasks.first_ps[task] = end_ps
        if output == 1:
            tasks.last_iteration[task] = self.iteration - 1
            tasks.finish_ps[task] = end_ps
            return False
        prompt, size = tasks.prompt[task], self.block_size
        tasks.last_iteration[task] = last = self.iteration + output - 2
        residue = (last + 2 - prompt - output) % size
        boundaries = self._boundaries
        boundaries[residue] += 1
        boundaries[residue + size] += 1
        self.decodes += 1
        self.context += prompt
        heappush(self._ends, last << ADMISSION_BITS | admission)
        return True

    def decode(self, steps: int, end_ps: int) -> list[int]:
        """Let every decoding sequence gain ``steps`` tokens; see ``RunningBatch``."""
        size, boundaries, iteration, free = self.block_size, self._boundaries, self.iteration, self.free
        taken = self._taken
        if steps > taken:
            at, count = (iteration + taken) % size, steps - taken
            if not taken and self._early:
                free += len(self._early)
            if count >= size:
                cycles = count // size
                free -= cycles * self.decodes
                count -= cycles * size
            if count:
                free -= sum(boundaries[at : at + count])
        self._taken = 0
        if self._early or self.entering or self._entered:
            self._early.clear()
            self._entered = set(self.entering) if steps == 1 else set()
            self.entering.clear()
        self.iteration = iteration = iteration + steps
        context = self.context + self.decodes * steps
        self._decode_planned_ps = self.now_ps if steps == 1 else -1
        self._earlier_decode_ps = self.last_decode_ps
        self._last_gain = 1
        self.last_decode_ps = end_ps
        used = self.blocks - free
        if used > self.peak:
            self.peak = used
        ends = self._ends
        ended: list[int] = []
        over = iteration << ADMISSION_BITS
        while ends and ends[0] < over:
            admission = heappop(ends) & ADMISSION_MASK
            task = self.running.get(admission)
            if task is not None:  # else: preempted since
                tasks = self.tasks
                total = tasks.prompt[task] + tasks.output[task]
                self.decodes -= 1
                residue = (iteration + 1 - total) % size
                boundaries[residue] -= 1
                boundaries[residue + size] -= 1
                context -= total - 1
                tasks.finish_ps[task] = end_ps
                ended.append(admission)
        self.free = free
        self.context = context
        return ended

    def release(self, admissions: list[int]) -> None:
        """Free seats and blocks of sequences whose last token has been delivered."""
        if self._padding:
            self.free += self._padding
            self._padding = 0
        running, tasks, size = self.running, self.tasks, self.block_size
        for admission in admissions:
            task = running.pop(admission, -1)
            if task >= 0:  # else: preempted while its last token was in flight
                self.free += (tasks.prompt[task] + tasks.output[task] - 2) // size + 1
