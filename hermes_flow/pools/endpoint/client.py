"""An account at a provider: each call begins when the limits allow it, and is answered at its own speed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from heapq import heapify, heappop, heappush
from typing import ClassVar, NamedTuple

import numpy as np

from hermes_flow.pools.client import Calls, PoolClient
from hermes_flow.pools.endpoint.spec import EndpointClientSpec
from hermes_flow.pools.endpoint.token_bucket import TokenBucket
from hermes_flow.pools.progress import Progress
from hermes_flow.pools.tasks import PoolTasks
from hermes_flow.program.units import NEVER, Ints
from hermes_flow.recording.recording import OpRecord

_END, _TOKEN = 0, 1  # at one instant, calls end before tokens are reported


class EndpointTasks(PoolTasks):
    """The calls of one pool as columns indexed by task, shared by its clients; times in nanoseconds."""

    __slots__ = ("cuts", "finish_ns", "first_ns", "output", "prompt", "start_ns", "tpot_ns", "ttft_ns")

    def __init__(self, prompt: list[int], output: list[int], ttft_ns: list[int], tpot_ns: list[int]) -> None:
        self.prompt = prompt
        self.output = output
        self.ttft_ns = ttft_ns
        self.tpot_ns = tpot_ns
        self.start_ns = [-1] * len(prompt)
        self.first_ns = [-1] * len(prompt)
        self.finish_ns = [-1] * len(prompt)
        self.cuts: dict[
            int, tuple[int, int, int]
        ] = {}  # what was done of calls that were cut off; see ``cut``

    def reset(self, task: int) -> None:
        """Forget a call that begins anew."""
        self.start_ns[task] = self.first_ns[task] = self.finish_ns[task] = -1
        self.cuts.pop(task, None)

    def spent(self, task: int, done: Progress, now_ns: int) -> tuple[int, int, int]:
        """Return the tokens and the ns that were spent on a call that begins anew; see ``PoolTasks``."""
        start_ns, finish_ns = self.start_ns[task], self.finish_ns[task]
        if task in self.cuts:
            prompt, answer, until_ns = self.cuts[task]
            return prompt, answer, max(0, until_ns - start_ns)
        if start_ns < 0 or not 0 <= finish_ns <= now_ns:
            return 0, 0, 0
        return self.prompt[task], self.output[task], finish_ns - start_ns

    def cut(self, task: int) -> tuple[int, int, int] | None:
        """Return what was done of a call that was cut off; see ``PoolTasks``."""
        return self.cuts.get(task)

    def record(self, first: int, count: int, client: Ints, ready_ns: Ints) -> OpRecord:
        """Return when each call began, and when its first and its last token came."""
        start, first_ns, finish = (
            np.array(column[first : first + count], dtype=np.int64)
            for column in (self.start_ns, self.first_ns, self.finish_ns)
        )
        return OpRecord(client, ready_ns, start, finish, first_ns)

    def input_tokens(self, task: int) -> int:
        """Return the tokens of its prompt."""
        return self.prompt[task]

    def output_tokens(self, task: int) -> int:
        """Return the tokens of its answer."""
        return self.output[task]

    def tokens(self, task: int) -> int:
        """Return the tokens that a call counts against the token limit: its prompt and its answer."""
        return self.prompt[task] + self.output[task]


class EndedCall(NamedTuple):
    """A call from its start to its end, with its tokens, and the time that it waited for the limits."""

    start_ns: int
    finish_ns: int
    prompt: int
    output: int
    tpot_ns: int
    wait_ns: int


class _Waiting(NamedTuple):
    """A call that had to wait, and the last begin and the buckets before it was given its own."""

    task: int
    order: int
    came_ns: int
    last_start_ns: int
    buckets: list[tuple[int, int]]


class EndpointClient(PoolClient):
    """Begins calls in order of arrival, each as soon as both limits allow; running calls do not slow each other.

    So the whole course of a call is known when it is submitted. A call that is rejected takes nothing of the limits.
    """

    fixed: ClassVar[bool] = True
    __slots__ = (
        "_buckets",
        "_calls",
        "_fired",
        "_fired_ns",
        "_last_start_ns",
        "_marks",
        "_pending",
        "_pool",
        "_queue",
        "_refused",
        "_rejects",
        "_submitted",
        "_under_way",
        "_wait_ns",
        "_waiting",
        "_waiting_tokens",
        "_written",
        "ended",
        "index",
        "rejected",
        "tasks",
    )

    def __init__(
        self, index: int, spec: EndpointClientSpec, tasks: EndpointTasks, calls: Calls, pool: str
    ) -> None:
        """``pool`` is the name by which a rejection names the endpoint."""
        self.index = index
        self.ended: list[EndedCall] = []  # also those that were cut off
        self._wait_ns: dict[int, int] = {}  # call that has not ended → its wait until the limits let it begin
        self.rejected = 0
        self.tasks = tasks
        self._calls = calls
        self._rejects = spec.rejects
        self._pool = pool
        limits = {
            "requests_per_minute": spec.requests_per_minute,
            "tokens_per_minute": spec.tokens_per_minute,
        }
        self._buckets = {name: TokenBucket(limit) for name, limit in limits.items() if limit is not None}
        self._last_start_ns = 0
        self._submitted = 0
        self._under_way = 0
        self._fired_ns = -1
        self._fired = 0  # calls that ended at _fired_ns, which are finished only after that instant
        self._pending: list[tuple[int, int, int, int, int]] = []  # (at, what, order, task, token)
        self._refused: dict[int, str] = {}
        self._queue: deque[_Waiting] = (
            deque()
        )  # calls that had to wait, in order; those that have begun go first
        self._waiting: deque[tuple[int, int]] = deque()  # (begins at, tokens of its prompt)
        self._waiting_tokens = 0
        self._marks: Mapping[int, list[int]] = {}
        self._written: Callable[[int, int, int], None] = lambda task, token, now_ns: None

    @property
    def deliveries(self) -> EndpointClient:
        """The client itself: it delivers answers when they are complete, and makes no other decisions."""
        return self

    def watch(self, tokens: Mapping[int, list[int]], written: Callable[[int, int, int], None]) -> None:
        """Call ``written(task, token, now_ns)`` when a token in ``tokens`` is generated; each list is reversed."""
        self._marks, self._written = tokens, written

    def submit(self, task: int, now_ns: int) -> int:
        """Begin a call, queue it, or reject it; return what ``next_ns`` does."""
        self._submitted += 1
        self._under_way += 1
        self._place(task, self._submitted, now_ns, now_ns)
        return self._pending[0][0]

    def _place(self, task: int, order: int, came_ns: int, now_ns: int) -> None:
        """Find out when a call begins and ends, from ``now_ns`` on, or reject it."""
        tasks = self.tasks
        earliest = max(now_ns, self._last_start_ns)
        start, limiting = earliest, ""
        for name, bucket in self._buckets.items():
            at = bucket.holds_ns(self._units(task, name), earliest)
            if at > start:
                start, limiting = at, name
        if self._rejects and start > now_ns:
            self.rejected += 1
            self._refused[task] = f"rejected by endpoint {self._pool}: above its {limiting}"
            heappush(self._pending, (now_ns, _END, order, task, 0))
            return
        if start > now_ns:
            self._forget_begun(now_ns)
            before = [bucket.state() for bucket in self._buckets.values()]
            self._queue.append(_Waiting(task, order, came_ns, self._last_start_ns, before))
        for name, bucket in self._buckets.items():
            bucket.take(self._units(task, name), start)
        self._last_start_ns = start
        self._wait_ns[task] = start - came_ns
        if start > now_ns:
            self._waiting.append((start, tasks.prompt[task]))
            self._waiting_tokens += tasks.prompt[task]
        tpot = tasks.tpot_ns[task]
        first = start + tasks.ttft_ns[task]
        finish = first + (tasks.output[task] - 1) * tpot
        tasks.start_ns[task], tasks.first_ns[task], tasks.finish_ns[task] = start, first, finish
        heappush(self._pending, (finish, _END, order, task, 0))
        for token in self._marks.get(task, ()):
            heappush(self._pending, (first + (token - 1) * tpot, _TOKEN, order, task, token))

    def withdraw(self, task: int, now_ns: int) -> int:
        """Take back a call: one that waits takes nothing of the limits, the answer of one that runs is cut off now.

        What was written by then, and the prompt, is paid for.
        """
        if any(entry[3] == task for entry in self._pending):
            self._under_way -= 1
            self._refused.pop(task, None)
            self._cancel([task])
            self._forget_begun(now_ns)
            place = next((place for place, one in enumerate(self._queue) if one.task == task), None)
            if place is not None:
                self._move_up(place, now_ns)
            elif self.tasks.start_ns[task] >= 0:
                written = self._written_by(task, now_ns)
                self._end(task, now_ns, written)
                self.tasks.cuts[task] = (self.tasks.prompt[task], written, now_ns)
        return self.next_ns()

    def _forget_begun(self, now_ns: int) -> None:
        """Remove the calls from the queue that have begun."""
        queue, start_ns = self._queue, self.tasks.start_ns
        while queue and start_ns[queue[0].task] <= now_ns:
            queue.popleft()

    def _cancel(self, gone: list[int]) -> None:
        """Let nothing more come of these calls."""
        self._pending = [entry for entry in self._pending if entry[3] not in gone]
        heapify(self._pending)

    def _move_up(self, place: int, now_ns: int) -> None:
        """Take a call out of the queue; those behind it may begin earlier."""
        tasks, queue = self.tasks, list(self._queue)
        moved = queue[place:]
        self._last_start_ns = moved[0].last_start_ns
        for bucket, state in zip(self._buckets.values(), moved[0].buckets, strict=True):
            bucket.restore(state)
        for one in moved:
            del self._wait_ns[one.task]
        self._queue = deque(queue[:place])
        self._cancel([one.task for one in moved])
        for one in moved:
            tasks.start_ns[one.task] = tasks.first_ns[one.task] = tasks.finish_ns[one.task] = -1
        self._waiting = deque((tasks.start_ns[one.task], tasks.prompt[one.task]) for one in self._queue)
        self._waiting_tokens = sum([prompt for _, prompt in self._waiting])
        for one in moved[1:]:
            self._place(one.task, one.order, one.came_ns, now_ns)

    def _written_by(self, task: int, now_ns: int) -> int:
        """Return the tokens of a call's answer that are written by ``now_ns``."""
        tasks = self.tasks
        if now_ns < tasks.first_ns[task]:
            return 0
        tpot = tasks.tpot_ns[task]
        more = (now_ns - tasks.first_ns[task]) // tpot if tpot else tasks.output[task]
        return min(tasks.output[task], 1 + more)

    def _end(self, task: int, now_ns: int, written: int) -> None:
        """Note that a call is over, or cut off, with so many tokens of its answer."""
        tasks = self.tasks
        self.ended.append(
            EndedCall(
                tasks.start_ns[task],
                now_ns,
                tasks.prompt[task],
                written,
                tasks.tpot_ns[task],
                self._wait_ns.pop(task),
            )
        )

    def calls(self) -> list[EndedCall]:
        """Return all calls that the limits let begin, those that are not over as they will be."""
        tasks = self.tasks
        under_way = [
            EndedCall(
                tasks.start_ns[task],
                tasks.finish_ns[task],
                tasks.prompt[task],
                tasks.output[task],
                tasks.tpot_ns[task],
                wait_ns,
            )
            for task, wait_ns in self._wait_ns.items()
        ]
        return [*self.ended, *under_way]

    def next_ns(self) -> int:
        """Return when the next answer is complete, or when a watched token is generated."""
        return self._pending[0][0] if self._pending else NEVER

    def fire(self, now_ns: int) -> int:
        """Deliver the answers that are complete now, and report the watched tokens generated now."""
        if now_ns > self._fired_ns:
            self._fired_ns, self._fired = now_ns, 0
        pending = self._pending
        while pending and pending[0][0] <= now_ns:
            _, what, _, task, token = heappop(pending)
            if what == _TOKEN:
                self._written(task, token, now_ns)
                continue
            self._fired += 1
            self._under_way -= 1
            reason = self._refused.pop(task, None)
            if reason is None:
                self._end(task, now_ns, self.tasks.output[task])
                self._calls.done(task, now_ns)
            else:
                self._calls.failed(task, now_ns, reason)
            pending = self._pending  # another list, where what follows takes a call back
        return pending[0][0] if pending else NEVER

    def settle(self, now_ns: int) -> None:
        """Do nothing: the client changes only at the instants that ``next_ns`` returns."""

    def outstanding(self, now_ns: int) -> int:
        """Return the number of calls submitted and not finished before ``now_ns``."""
        return self._under_way + (self._fired if self._fired_ns == now_ns else 0)

    def queued_tokens(self, now_ns: int) -> int:
        """Return the prompt tokens of calls that wait for a limit, plus one for every other running call."""
        waiting = self._waiting
        while waiting and waiting[0][0] <= now_ns:
            self._waiting_tokens -= waiting.popleft()[1]
        return self._waiting_tokens + self.outstanding(now_ns) - len(waiting)

    def _units(self, task: int, limit: str) -> int:
        return self.tasks.tokens(task) if limit == "tokens_per_minute" else 1
