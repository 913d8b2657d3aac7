"""A host that serves one task per core, first come first served: tokenizers, detokenizers, tools."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush, heapreplace
from typing import ClassVar

from hermes_flow.pools.client import PoolClient
from hermes_flow.pools.progress import Progress
from hermes_flow.pools.tasks import PoolTasks
from hermes_flow.program.columns import column, rows
from hermes_flow.program.pools import SequentialClientSpec
from hermes_flow.program.units import NEVER, Ints
from hermes_flow.program.work import CoreTime, Work
from hermes_flow.recording.recording import OpRecord


class SequentialTasks(PoolTasks):
    """The tasks of one sequential pool as columns indexed by task, shared by its clients."""

    __slots__ = ("finish_ns", "service_ns", "start_ns", "waited")

    def __init__(self, service_ns: list[int], waited: Sequence[bool]) -> None:
        """``waited`` tells of each op, all of which have as many tasks, whether anyone waits for its tasks."""
        self.service_ns = service_ns
        self.waited = b"".join([bytes([one]) * (len(service_ns) // len(waited)) for one in waited])
        self.start_ns = column(len(service_ns))
        self.finish_ns = column(len(service_ns))

    def reset(self, task: int) -> None:
        """Forget what a client has done for a task that is lost with it, and that begins anew."""
        self.start_ns[task] = self.finish_ns[task] = -1

    def spent(self, task: int, done: Progress, now_ns: int) -> tuple[int, int, int]:
        """Return the ns that were spent on a task which begins anew; it has no tokens of its own."""
        start_ns, finish_ns = self.start_ns[task], self.finish_ns[task]
        until_ns = now_ns if finish_ns < 0 else min(finish_ns, now_ns)
        return 0, 0, max(0, until_ns - start_ns) if start_ns >= 0 else 0

    def renew(self, first: int, work: Work) -> None:
        """Let other requests take the numbers from ``first`` on, with their ``work``."""
        assert isinstance(work, CoreTime)
        service_ns = work.service_ns.tolist()
        count = len(service_ns)
        self.service_ns[first : first + count] = service_ns
        self.start_ns[first : first + count] = column(count)
        self.finish_ns[first : first + count] = column(count)

    def record(self, first: int, count: int, client: Ints, ready_ns: Ints) -> OpRecord:
        """Return when each task started and finished."""
        start, finish = (rows(of, first, count) for of in (self.start_ns, self.finish_ns))
        return OpRecord(client, ready_ns, start, finish)


class SequentialClient(PoolClient):
    """``cores`` servers and one queue.

    Tasks are submitted in order of time, so a task's start and finish are known as soon as it is submitted:
    it takes the core that is free first. Tasks that nobody waits for are only counted until they end.
    """

    fixed: ClassVar[bool] = True
    __slots__ = (
        "_abandoned",
        "_done",
        "_fired",
        "_fired_ns",
        "_free_at",
        "_pending",
        "_tasks",
        "_unwaited",
        "busy_ns",
        "cores",
        "index",
        "served",
    )

    def __init__(
        self,
        index: int,
        spec: SequentialClientSpec,
        tasks: SequentialTasks,
        done: Callable[[int, int], None],
    ) -> None:
        self.index = index
        self.cores = spec.cores
        self.busy_ns = 0
        self.served = 0
        self._tasks = tasks
        self._done = done
        self._free_at = [0] * spec.cores
        self._fired_ns = -1
        self._fired = 0  # tasks handed over at _fired_ns, which are finished only after that instant
        self._pending: list[tuple[int, int, int]] = []  # heap of (finish, order of submission, task)
        self._unwaited: list[int] = []  # heap of the ends of tasks that nobody waits for
        self._abandoned: list[int] = []  # ends of tasks that were taken back from their cores

    @property
    def deliveries(self) -> SequentialClient:
        """The client itself: it delivers tasks when they finish, and makes no other decisions."""
        return self

    def submit(self, task: int, now_ns: int) -> int:
        """Queue a task that is ready now; return when the next task finishes that anyone waits for."""
        tasks, pending = self._tasks, self._pending
        service = tasks.service_ns[task]
        free_at = self._free_at[0]
        start = free_at if free_at > now_ns else now_ns
        finish = start + service
        heapreplace(self._free_at, finish)
        tasks.start_ns[task] = start
        tasks.finish_ns[task] = finish
        self.busy_ns += service
        self.served += 1
        if tasks.waited[task]:
            heappush(pending, (finish, self.served, task))
        else:
            heappush(self._unwaited, finish)
        return pending[0][0] if pending else NEVER

    def withdraw(self, task: int, now_ns: int) -> int:
        """Take back a task: one that has a core keeps it to its end, one that waits lets those behind it move up.

        Raises RuntimeError where the client does not know every task, since nobody waits for some.
        """
        if self._unwaited:
            raise RuntimeError("a host from which tasks are taken back must report all of them")
        tasks, pending = self._tasks, self._pending
        place = next((place for place, entry in enumerate(pending) if entry[2] == task), None)
        if place is not None:
            finish = pending.pop(place)[0]
            if tasks.start_ns[task] > now_ns:
                self.busy_ns -= tasks.service_ns[task]
                tasks.start_ns[task] = tasks.finish_ns[task] = -1
                self._move_up(now_ns)
            else:
                self._abandoned.append(finish)
                heapify(pending)
        return pending[0][0] if pending else NEVER

    def _move_up(self, now_ns: int) -> None:
        """Give the tasks that wait, in their order, the cores that become free first."""
        tasks, pending = self._tasks, self._pending
        self._abandoned = [finish for finish in self._abandoned if finish > now_ns]
        begun = [entry for entry in pending if tasks.start_ns[entry[2]] <= now_ns]
        waiting = [entry for entry in pending if tasks.start_ns[entry[2]] > now_ns]
        ends = [finish for finish, _, _ in begun if finish > now_ns] + self._abandoned
        free_at = ends + [now_ns] * (self.cores - len(ends))
        heapify(free_at)
        for _, order, task in sorted(waiting, key=lambda entry: entry[1]):
            start = free_at[0]
            finish = start + tasks.service_ns[task]
            heapreplace(free_at, finish)
            tasks.start_ns[task], tasks.finish_ns[task] = start, finish
            begun.append((finish, order, task))
        heapify(begun)
        self._free_at, self._pending = free_at, begun

    def holds(self, first: int, last: int) -> bool:
        """Return whether one of the tasks ``first`` … ``last − 1`` is in hand and waited for."""
        return any(first <= task < last for _, _, task in self._pending)

    def next_ns(self) -> int:
        """Return when the next task finishes, if anyone waits for it."""
        return self._pending[0][0] if self._pending else NEVER

    def fire(self, now_ns: int) -> int:
        """Deliver the tasks that finish now."""
        pending = self._pending
        if now_ns > self._fired_ns:
            self._fired_ns = now_ns
            self._fired = 0
        while pending and pending[0][0] <= now_ns:
            self._fired += 1
            self._done(heappop(pending)[2], now_ns)
            pending = self._pending  # another list, where what follows takes a task back
        return pending[0][0] if pending else NEVER

    def settle(self, now_ns: int) -> None:
        """Remove finished tasks that nobody waits for."""
        unwaited = self._unwaited
        while unwaited and unwaited[0] < now_ns:
            heappop(unwaited)

    def outstanding(self, now_ns: int) -> int:
        """Number of tasks submitted and not finished before ``now_ns``."""
        self.settle(now_ns)
        return len(self._pending) + len(self._unwaited) + (self._fired if self._fired_ns == now_ns else 0)

    def stop(self, now_ns: int) -> None:
        """End at ``now_ns``; the work of what is in hand counts up to then. All tasks must be waited for."""
        for finish, _, task in self._pending:
            if finish > now_ns:
                self.busy_ns -= finish - max(self._tasks.start_ns[task], now_ns)
                self.served -= 1

    def queue_length(self, now_ns: int) -> int:
        """Return the number of tasks that wait for a core. All tasks must be waited for."""
        start_ns = self._tasks.start_ns
        return sum([start_ns[task] >= now_ns for _, _, task in self._pending])

    def queued_tokens(self, now_ns: int) -> int:
        """The remaining work in nanoseconds of core time (``least_tokens`` compares it)."""
        return sum(free - now_ns for free in self._free_at if free > now_ns)
