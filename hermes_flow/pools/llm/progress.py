"""Tells what an LLM client that has failed had given each of its sequences by then.

A client plans a step before the one in progress is over. So up to two decode steps are planned whose tokens have not
left when it fails; all that were planned before have.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from hermes_flow.pools.llm.batch import RunningBatch
from hermes_flow.pools.llm.tasks import LLMTasks
from hermes_flow.pools.progress import NOTHING, Progress

_ROW = struct.Struct("7q")  # as pools/llm/step_log.py packs them


class LastDecodes:
    """The last decode steps of a client around ``at_ps``: the ends of ``late`` ones, and the last one before.

    ``before_ps`` is -1 where no decode step had ended. A token that leaves at ``at_ps`` has left.
    """

    __slots__ = ("at_ps", "before_ps", "late")

    def __init__(self, log: bytearray, at_ps: int, context_ps: int) -> None:
        """``log`` has the rows of all planned steps, those of one length grow by ``context_ps`` for each decode."""
        self.at_ps = at_ps
        self.late: list[int] = []
        self.before_ps = -1
        for place in range(len(log) - _ROW.size, -1, -_ROW.size):
            start, end, steps, decodes, _, _, _ = _ROW.unpack_from(log, place)
            if not steps or not decodes:
                continue
            growth = context_ps * decodes
            first = (end - start - growth * (steps * (steps - 1) // 2)) // steps
            for step in range(steps - 1, -1, -1):
                if end <= at_ps:
                    self.before_ps = end
                    return
                self.late.append(end)
                end -= first + growth * step

    def progress(self, batch: RunningBatch, task: int) -> Progress:
        """Return how far a task was that the client had in hand."""
        tasks = batch.tasks
        admission = batch.seat_of(task)
        if admission in batch.prefilling:
            answer = tasks.generated[task]
            return Progress(
                min(batch.prefilling[admission], tasks.prompt[task]), answer, _last_ps(batch, task, answer)
            )
        joined = batch.last_token_ps(task)
        if not admission:
            return self._of_waiting(batch, task, joined)
        answer = batch.planned_answer(admission)
        late = self._late_of(batch, task, joined)
        answer -= len(late)
        if joined > self.at_ps:
            return _before_resume(batch, tasks, task, answer - 1)
        entered = task in batch.entering or (bool(late) and batch.has_just_entered(task))
        return Progress(tasks.prompt[task], answer, joined if entered else max(joined, self.before_ps))

    def progress_in_gang(self, tasks: LLMTasks, gang: Sequence[int], task: int) -> Progress:
        """Return how far a task was in a gang that has not ended: its members decode in all steps of the gang."""
        if tasks.first_ps[task] > self.at_ps:
            return Progress(tasks.prompt[task], 0, -1)
        steps = max([tasks.output[one] for one in gang]) - 1
        answer = min(tasks.output[task], 1 + steps - len(self.late))
        return Progress(tasks.prompt[task], answer, max(tasks.first_ps[task], self.before_ps))

    def written(self, batch: RunningBatch, task: int) -> int:
        """Return the tokens of a sequence with a seat that have left, by the steps in the log."""
        joined = batch.last_token_ps(task)
        late = len(self._late_of(batch, task, joined)) + (joined > self.at_ps)
        return batch.planned_answer(batch.seat_of(task)) - late

    def _late_of(self, batch: RunningBatch, task: int, joined: int) -> list[int]:
        """Return the ends of the late steps in which a decoding sequence takes part."""
        if task in batch.entering:
            return []
        finish_ps = batch.tasks.finish_ps[task]
        late = [end for end in self.late if end > joined and not 0 <= finish_ps < end]
        return late[:1] if batch.has_just_entered(task) else late

    def _of_waiting(self, batch: RunningBatch, task: int, joined: int) -> Progress:
        """Return how far a task was that waits, after a preemption if it has tokens."""
        tasks = batch.tasks
        answer = tasks.output[task] if tasks.finish_ps[task] >= 0 else tasks.generated[task]
        if not answer:
            return NOTHING
        if tasks.finish_ps[task] >= 0:
            joined = tasks.finish_ps[task]
        if joined <= self.at_ps:
            return Progress(tasks.prompt[task], answer, joined)
        # It was preempted while the step of its last token was under way.
        if batch.resumed_from_ps.get(task, (-1, -1))[1] == joined:
            return _before_resume(batch, tasks, task, answer - 1)
        return Progress(tasks.prompt[task], answer - 1, self.before_ps if answer > 1 else -1)


def _last_ps(batch: RunningBatch, task: int, answer: int) -> int:
    return batch.last_token_ps(task) if answer else -1


def _before_resume(batch: RunningBatch, tasks: LLMTasks, task: int, answer: int) -> Progress:
    """Return how far a task was whose prompt is computed in a step under way; a gap that never was is taken back."""
    if not answer:
        return Progress(tasks.prompt[task], 0, -1)
    before_ps, end_ps = batch.resumed_from_ps[task]
    batch.resume_gaps_ps.remove(end_ps - before_ps)
    return Progress(tasks.prompt[task], answer, before_ps)
