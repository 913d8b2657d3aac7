"""Reports when a watched token of an answer is generated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from heapq import heappop, heappush

from hermes_flow.pools.llm.batch import RunningBatch
from hermes_flow.pools.llm.tasks import LLMTasks
from hermes_flow.pools.outbox import Outbox

_SHIFT = 40
_MASK = (1 << _SHIFT) - 1
_UNLIMITED = 1 << 40


class WatchedTokens:
    """The watched tokens of one batch, reported when the steps that generate them are planned.

    ``tokens`` are those of each task that are still to be written, the next one last, and shared by all batches that
    may run it; the answer's last token is none of them. A run of decode steps must not go past the next one.
    """

    __slots__ = ("_ahead", "_batch", "_outbox", "_tasks", "_tokens")

    def __init__(
        self, batch: RunningBatch, tasks: LLMTasks, tokens: Mapping[int, list[int]], outbox: Outbox
    ) -> None:
        self._batch = batch
        self._tasks = tasks
        self._tokens = tokens
        self._outbox = outbox
        self._ahead: list[int] = []  # heap of (iteration that writes it, admission), packed

    def steps(self) -> int:
        """Return the number of iterations up to the one that generates the next watched token, inclusive."""
        ahead, running = self._ahead, self._batch.running
        while ahead and ahead[0] & _MASK not in running:  # preempted since
            heappop(ahead)
        return (ahead[0] >> _SHIFT) - self._batch.iteration + 1 if ahead else _UNLIMITED

    def enter(self, task: int) -> None:
        """Note that a computed task was admitted; the next iteration generates its next token."""
        self._expect(next(reversed(self._batch.running)), task, self._tasks.generated[task])

    def note(self, completed: Iterable[tuple[int, int]], end_ps: int) -> None:
        """Note planned iterations that end at ``end_ps``, and the prefills that are complete then."""
        ahead, batch = self._ahead, self._batch
        while ahead and ahead[0] >> _SHIFT < batch.iteration:
            entry = heappop(ahead)
            task = batch.running.get(entry & _MASK)
            if task is not None:  # else: preempted since
                token = self._tokens[task].pop()
                self._outbox.watched.append((end_ps, (task, token)))
                self._expect(entry & _MASK, task, token, entry >> _SHIFT)
        for admission, task in completed:
            token = self._tasks.generated[task] + 1
            marked = self._tokens.get(task)
            if marked and marked[-1] == token:
                self._outbox.watched.append((end_ps, (task, marked.pop())))
            self._expect(admission, task, token)

    def _expect(self, admission: int, task: int, written: int, iteration: int | None = None) -> None:
        """Expect the next marked token of a sequence that had ``written`` tokens after ``iteration``, or now."""
        marked = self._tokens.get(task)
        if marked:
            last = self._batch.iteration - 1 if iteration is None else iteration
            heappush(self._ahead, last + marked[-1] - written << _SHIFT | admission)
