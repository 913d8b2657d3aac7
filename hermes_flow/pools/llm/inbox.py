"""Tasks that were routed to an LLM client but are not yet visible to its scheduler."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from typing import Final

from hermes_flow.pools.llm.load import LLMLoad
from hermes_flow.pools.llm.tasks import LLMTasks
from hermes_flow.program.units import PS_PER_NS
from hermes_flow.routing.unfinished import Unfinished

REMINDER = 1 << 60  # no task has this number
_NO_TASK: Final = ~(REMINDER + 1)  # less than any entry of a queue
_NEAR: Final = 32  # among so many tasks a place is looked for first


class Inbox:
    """``queue`` has (visible to the scheduler at, task) in order of time; ``expected`` those whose KV or context is
    on the way, with the tokens that they count with until they are here.

    A task below 0 in ``queue`` is the complement of one that is taken back from the scheduler then; there are
    ``withdrawals`` of them. ``holding`` are those that have their place in the waiting queue already, and whose
    context is looked up. ``served`` counts the tasks that came, ``load`` is told of each as it is routed, where
    somebody keeps it.
    """

    __slots__ = (
        "_place",
        "_tasks",
        "_unfinished",
        "expected",
        "holding",
        "ingest_ns",
        "load",
        "queue",
        "served",
        "withdrawals",
    )

    def __init__(self, tasks: LLMTasks, ingest_ns: int) -> None:
        self._tasks = tasks
        self.ingest_ns = ingest_ns
        self.expected: dict[int, int] = {}
        self.holding: set[int] = set()
        self.load: LLMLoad | None = None
        self._unfinished: Unfinished | None = None
        self._place = -1
        self.queue: deque[tuple[int, int]] = deque()
        self.served = 0
        self.withdrawals = 0

    def __len__(self) -> int:
        return len(self.expected) + len(self.holding) + len(self.queue) - self.withdrawals

    def __contains__(self, task: int) -> bool:
        if task in self.expected or task in self.holding:
            return True
        return any(queued == task for _, queued in self.queue)

    def count(self, unfinished: Unfinished, place: int) -> None:
        """Report each task to ``unfinished`` as it is routed to client ``place``."""
        self._unfinished, self._place = unfinished, place

    def ask(self, task: int, now_ns: int) -> None:
        """Queue a task that asks for the blocks of its KV; the scheduler sees it after the engine's ingest time."""
        self._tasks.ask(task)
        self._insert(
            (now_ns + self.ingest_ns) * PS_PER_NS, task
        )  # KV that is noticed later may be queued already
        self.served += 1
        if self._unfinished is not None:
            self._unfinished.come(self._place)
        if self.load is not None:
            whole = self._tasks.emits_first or task in self._tasks.contexts
            self.load.take(task, generated=0 if whole else 1)

    def expect(self, task: int) -> None:
        """Take note that the KV of a task that had asked is on the way."""
        self.expected[task] = self._tasks.prompt[task] if task in self._tasks.contexts else 1

    def bring(self, task: int, at_ps: int) -> bool:
        """Queue a task whose KV is here; return True where it comes before all that were to come next."""
        del self.expected[task]
        return self._comes_next(at_ps, task)

    def await_data(self, task: int) -> None:
        """Note that a task waits for its context, of which the cached part is not known yet."""
        self.expected[task] = self._tasks.prompt[task]
        if self._unfinished is not None:
            self._unfinished.come(self._place)
        if self.load is not None:
            self.load.take(task)

    def hold(self, task: int, now_ns: int) -> None:
        """Give a task that waits for its context a place in the queue; ``submit`` follows."""
        self.holding.add(task)
        if self._unfinished is not None:
            self._unfinished.come(self._place)
        self._tasks.since_ps[task] = (now_ns + self.ingest_ns) * PS_PER_NS
        if self.load is not None:
            self.load.take(task)

    def submit(self, task: int, now_ns: int) -> bool:
        """Queue a task that is ready now; the scheduler sees it after the engine's ingest time.

        Returns True where it comes before all that were to come next: its context was looked up meanwhile.
        """
        if self.holding and task in self.holding:
            return self._release(task, now_ns)
        queue, at_ps = self.queue, (now_ns + self.ingest_ns) * PS_PER_NS
        later = bool(queue) and queue[-1][0] > at_ps  # KV that is noticed later
        if later:
            later = self._comes_next(at_ps, task)
        else:
            queue.append((at_ps, task))
        self.served += 1
        if self.expected and task in self.expected:
            del self.expected[task]
            return later
        if self.load is not None:
            self.load.take(task)
        if self._unfinished is not None:
            self._unfinished.come(self._place)
        return later

    def submit_known(self, tasks: list[int], at_ns: list[int]) -> None:
        """Queue tasks that will be ready then, in order of time and after all others; nobody counts them."""
        ingest_ns = self.ingest_ns
        self.queue.extend(
            [((at + ingest_ns) * PS_PER_NS, task) for at, task in zip(at_ns, tasks, strict=True)]
        )
        self.served += len(tasks)

    def submit_amid(self, task: int, now_ns: int, senders: Sequence[int] = (), first: int = 0) -> None:
        """Queue a task that is ready now before those that are known to come later; nobody counts it.

        With ``senders`` of the tasks from ``first`` on, it may also be one that is ready later: of those of one
        instant that have a sender, the one with the least comes first.
        """
        at_ps = (now_ns + self.ingest_ns) * PS_PER_NS
        queue = self.queue
        count = len(queue)
        near = _NEAR if count > _NEAR and queue[_NEAR][0] > at_ps else count
        place = bisect_left(queue, (at_ps, _NO_TASK), 0, near)
        sender = senders[task - first] if senders else -1
        while place < count and queue[place][0] == at_ps:
            other = queue[place][1] - first
            if senders and 0 <= other < len(senders) and senders[other] > sender:
                break
            place += 1
        queue.insert(place, (at_ps, task))
        self.served += 1
        if self.expected:
            self.expected.pop(task, None)

    def submit_for(self, task: int, at_ps: int) -> bool:
        """Queue a task that the scheduler sees at ``at_ps``, though tasks before it may be seen later.

        Returns True where it comes before all that were to come next.
        """
        self.served += 1
        if self.load is not None:
            self.load.take(task)
        if self._unfinished is not None:
            self._unfinished.come(self._place)
        return self._comes_next(at_ps, task)

    def put_aside(self, task: int, until_ps: int) -> None:
        """Queue a task again that the scheduler has seen, and that waits until then for its KV."""
        self._insert(until_ps, task)

    def put_aside_for(self, task: int, other: int) -> None:
        """Queue a task again that comes back right after another one, before those that wait for that one already."""
        for place, (at, queued) in enumerate(self.queue):
            if queued == other:
                self.queue.insert(place + 1, (at, task))
                return

    def remind(self, at_ps: int) -> None:
        """Let the scheduler look at its blocks then; it sees a withdrawal of the task REMINDER."""
        self._insert(at_ps, ~REMINDER)
        self.withdrawals += 1

    def _release(self, task: int, now_ns: int) -> bool:
        """Queue a task that was held: the scheduler has seen it, or is about to."""
        self.holding.remove(task)
        self.served += 1
        return self._comes_next(max(now_ns * PS_PER_NS, self._tasks.since_ps[task]), task)

    def _comes_next(self, at_ps: int, task: int) -> bool:
        """Queue a task in order of time; return whether others come after it and none before."""
        return not self._insert(at_ps, task) and len(self.queue) > 1

    def withdraw(self, task: int, now_ns: int) -> bool:
        """Take a task back; return whether the scheduler knows of it, and sees that it goes at its next plan."""
        if self._unfinished is not None:
            self._unfinished.leave(self._place)
        if task in self.expected:
            del self.expected[task]
        elif task in self.holding:
            self.holding.remove(task)
        elif not self._forget_queued(task, now_ns * PS_PER_NS):
            self._insert(now_ns * PS_PER_NS, ~task)
            self.withdrawals += 1
            return True
        self._tasks.since_ps.pop(task, None)
        self._tasks.forget_kv(task)
        if self.load is not None:
            self.load.drop(task)
        return False

    def forget(self, task: int) -> None:
        """Count a task no more that was taken out of the waiting queue."""
        if self._unfinished is not None:
            self._unfinished.leave(self._place)
        if self.load is not None:
            self.load.drop(task)

    def _forget_queued(self, task: int, now_ps: int) -> bool:
        """Remove a task that the scheduler does not see before ``now_ps``; return False if there is none."""
        for place, (at, queued) in enumerate(self.queue):
            if queued == task and at > now_ps:
                del self.queue[place]
                return True
        return False

    def _insert(self, at_ps: int, task: int) -> int:
        """Queue a task at its instant, after those of the same one; return its place."""
        queue = self.queue
        place = len(queue)
        while place and queue[place - 1][0] > at_ps:
            place -= 1
        queue.insert(place, (at_ps, task))
        return place

    def tokens(self) -> int:
        """Return the tokens of these prompts; a prompt whose KV is sent from another client counts as one."""
        total = sum(self.expected.values()) + sum([self._tasks.prompt[task] for task in self.holding])
        for _, task in self.queue:
            if task >= 0:
                total += 1 if task in self._tasks.kept else self._tasks.prompt[task]
        return total
