"""The running sequences of one LLM client: how they leave their seats, and how they take each other's blocks.

How they come and decode is in ``decoding_batch.py``.
"""

from __future__ import annotations

from mypy_extensions import mypyc_attr

from hermes_flow.pools.llm.decoding_batch import DecodingBatch
from hermes_flow.pools.llm.tasks import LLMTasks


@mypyc_attr(allow_interpreted_subclasses=True)
class RunningBatch(DecodingBatch):
    """A batch whose sequences end, are preempted where blocks run out, or are taken back.

    Preempted sequences are recomputed. Where it ``swaps``, decoding ones are copied to host memory and back instead:
    the copies of a plan lengthen its step. Subclasses reserve blocks, or remember prefixes.
    """

    __slots__ = ("swaps",)

    def __init__(self, tasks: LLMTasks, blocks: int, block_size: int) -> None:
        super().__init__(tasks, blocks, block_size)
        self.swaps = False

    # Leaving.

    def release(self, admissions: list[int]) -> None:
        """Free seats and blocks of sequences whose last token has been delivered."""
        if self._padding:
            self.free += self._padding
            self._padding = 0
        leaving = self.tasks.leaving
        for admission in admissions:
            task = self.running.pop(admission, None)
            if task is None:  # preempted while its last token was in flight
                continue
            if leaving and leaving[task]:
                self.handing_over[task] = admission
            else:
                self._free_ended(admission, task)

    def let_go(self, task: int) -> bool:
        """Free the blocks of a prompt whose KV no client awaits any more, now or as it ends; return whether now."""
        self.tasks.leaving[task] = 0
        admission = self.handing_over.pop(task, None)
        if admission is None:
            return False
        self._free_ended(admission, task)
        return True

    def preempt_last(self, preempted: list[int]) -> int:
        """Take seat and blocks from the sequence admitted last; return its admission number."""
        admission, task = self.running.popitem()
        self._unseat(admission, task, comes_back=True)
        preemptions = self.tasks.preemptions
        preemptions[task] = preemptions.get(task, 0) + 1
        preempted.append(task)
        return admission

    def withdraw(self, admission: int) -> None:
        """Take seat and blocks from a sequence whose request was taken back.

        A step that is planned goes on with it, as does that of a preempted one.
        """
        task = self.running.pop(admission)
        self._unseat(admission, task, comes_back=False)
        self._forget_tokens(task)

    def withdraw_waiting(self, task: int) -> None:
        """Forget the tokens that a waiting task, which was taken back, would have computed."""
        tasks = self.tasks
        kept = tasks.kept.pop(task, None)
        self.backlog -= 1 if kept is not None else tasks.prompt[task] + tasks.generated[task]
        if tasks.preloaded:
            tasks.preloaded.pop(task, None)
        self._forget_tokens(task)

    def _forget_tokens(self, task: int) -> None:
        """Forget when a task got its tokens, which may come again as a new one."""
        self._last_token_ps.pop(task, None)
        self.resumed_from_ps.pop(task, None)
        self.resumed.pop(task, None)

    def _unseat(self, admission: int, task: int, *, comes_back: bool) -> None:
        """Take seat and blocks from a running sequence, which waits again if it ``comes_back``."""
        tasks = self.tasks
        prompt = tasks.prompt[task]
        output = tasks.output[task]
        if self.adapters is not None and tasks.finish_ps[task] < 0:
            self.adapters.give_back(tasks.adapter[task])
        computed = self.prefilling.pop(admission, None)
        known = computed or 0
        if computed is not None:
            self.backlog += computed if comes_back else computed - prompt - tasks.generated[task]
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
                if comes_back:
                    self.backlog += self._keep(task, computed)
            known = computed
            if task not in self.entering:
                # Less, where it ended within the step.
                known -= max(0, self._not_known(task, joined) + min(remaining, 0))
            self.entering.discard(task)
        if admission in self._early:
            self._early.remove(admission)
            self._free_early()
        self._free_preempted(admission, task, computed, known)

    def _not_known(self, task: int, joined_ps: int) -> int:
        """Return how many computed tokens of a decoding sequence that joined at ``joined_ps`` are not known by now.

        Those of the last step are not, if it is not over and was planned before the step that emitted the first of
        them was. Who entered with the last step had emitted that long before.
        """
        if joined_ps >= self.last_decode_ps or self.last_decode_ps <= self.now_ps:
            return 0
        if task in self._entered:
            return self._last_gain - 1
        return 0 if max(joined_ps, self._earlier_decode_ps) <= self._decode_planned_ps else self._last_gain

    # Preemption, where blocks run out.

    def take_or_preempt(self, preempted: list[int]) -> None:
        """Take the blocks of the next iteration; where they are not free, preempt from the tail.

        Blocks are taken in order of admission; the preempted tasks are appended in order of preemption.
        """
        if self._boundaries[self.iteration % self.block_size] - len(self._early) > self.free:
            self._make_room(preempted)
            self._taken = 1 if self.decodes else 0
        elif self.decodes:
            self.take_iteration()

    def take_or_preempt_one(self, admission: int, preempted: list[int]) -> bool:
        """Take the block of one decoding sequence for the next iteration; False where it had to go for it itself.

        Where none is free, sequences are preempted from the tail. ``all_taken`` follows when all have theirs.
        """
        tasks, task, size = self.tasks, self.running[admission], self.block_size
        residue = tasks.last_iteration[task] + 2 - tasks.prompt[task] - tasks.output[task]
        if (residue - self.iteration) % size or not self._boundaries[residue % size]:  # or all are reserved
            return True
        while not self.free:
            if not self.reclaim(-1) and self.preempt_last(preempted) == admission:
                return False
        self._take_one(admission)
        return True

    def all_taken(self) -> None:
        """Note that all decoding sequences have their blocks of the next iteration."""
        self._taken = 1 if self.decodes else 0

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

    def _keep(self, task: int, computed: int) -> int:
        """A decoding sequence is preempted: return how many tokens it must prefill again.

        With swapping none: it keeps them in host memory, and one token must still come.
        """
        if not self.swaps:
            return computed + 1
        self.tasks.kept[task] = computed
        self.copy_ps += -(-computed // self.block_size) * self.swap_ps_per_block
        return 1
