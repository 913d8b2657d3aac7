"""A client that collects waiting tasks and serves them in one pass: encoders, vector search, rerankers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import ClassVar, NoReturn

import numpy as np

from hermes_flow.pools.client import Connect, PoolClient, PoolTasks
from hermes_flow.pools.deliveries import Deliveries
from hermes_flow.program.pools import BatchedClientSpec
from hermes_flow.program.units import NEVER, PS_PER_NS, Ints
from hermes_flow.program.work import PassCost
from hermes_flow.recording.recording import OpRecord


class BatchedTasks(PoolTasks):
    """The tasks of one batched pool as columns indexed by task, shared by its clients.

    ``passes`` has the cost of each op that the pool serves, which has ``count`` tasks each; ops with one and the same
    cost are turns of one stage. ``tokens`` are a task's, of all its sequences, where its pass depends on them.
    """

    __slots__ = ("_count", "_place", "finish_ns", "passes", "start_ns", "tokens")

    def __init__(self, passes: Sequence[PassCost], tokens: list[int], count: int) -> None:
        self.passes = passes
        self.tokens = tokens
        self.start_ns = [-1] * len(tokens)
        self.finish_ns = [-1] * len(tokens)
        self._count = count
        first: dict[int, int] = {}
        self._place = [first.setdefault(id(cost), place) for place, cost in enumerate(passes)]

    def record(self, first: int, count: int, client: Ints, ready_ns: Ints) -> OpRecord:
        """Return when each task's pass began and ended."""
        start, finish = (
            np.array(column[first : first + count], dtype=np.int64)
            for column in (self.start_ns, self.finish_ns)
        )
        return OpRecord(client, ready_ns, start, finish)

    def place(self, task: int) -> int:
        """Return the stage of a task, as the number of that stage's first op."""
        return self._place[task // self._count]

    def pass_ns(self, batch: list[int]) -> int:
        """Return how long one pass over tasks of one stage takes, with all the bandwidth it can use."""
        cost = self.passes[self.place(batch[0])]
        if cost.step is None:
            return cost.ns[len(batch)]
        each = cost.sequences
        rows = [(self.tokens[task] // each, 0) for task in batch for _ in range(each)]
        return cost.step.step_ps(rows, 0, 0) // PS_PER_NS

    def pass_bytes(self, batch: list[int]) -> int:
        """Return what the pass reads of its host's memory."""
        cost = self.passes[self.place(batch[0])]
        return cost.bytes[len(batch)] if cost.bytes else 0


class BatchedClient(PoolClient):
    """One server with one queue; a pass takes up to ``max_batch`` tasks of the stage whose task waits longest.

    With ``wait_ns`` a pass that is not full begins only when its first task has waited so long, and tasks of other
    stages wait with it. ``read`` starts reading from a memory that others read too; the pass ends when that is over.
    """

    fixed: ClassVar[bool] = True
    deliveries: Deliveries
    __slots__ = (
        "_batch",
        "_ended",
        "_finish_ns",
        "_free_ns",
        "_none",
        "_queued_tokens",
        "_queues",
        "_spec",
        "_tasks",
        "busy_ns",
        "deliveries",
        "index",
        "on_deliver",
        "on_plan",
        "read",
        "served",
        "steps",
    )

    def __init__(
        self,
        index: int,
        spec: BatchedClientSpec,
        tasks: BatchedTasks,
        done: Callable[[int, int], None],
    ) -> None:
        self.index = index
        self.busy_ns = 0
        self.served = 0
        self.steps = 0
        self.deliveries = Deliveries(self, done, lambda task, now_ns: None, fixed=True)
        self.on_plan: Callable[[], None] = lambda: None  # called as the next delivery may have changed
        self.on_deliver: Callable[[], None] = lambda: None  # called as the client is free again
        self.read: Callable[[int, int, int], None] | None = None  # (bytes, ns it takes alone, now_ns)
        self._spec = spec
        self._tasks = tasks
        # By stage: (order of submission, submitted at, task).
        self._queues: list[deque[tuple[int, int, int]]] = [deque() for _ in tasks.passes]
        self._none: deque[tuple[int, int, int]] = deque()
        self._queued_tokens = 0
        self._batch: list[int] = []
        self._finish_ns = NEVER
        self._free_ns = -1
        self._ended = 0  # tasks delivered at _free_ns, which are finished only after that instant

    @property
    def plans(self) -> BatchedClient:
        """The client itself: it decides when passes begin."""
        return self

    def on_change(self, deliveries: Callable[[], None], plans: Callable[[], None]) -> None:
        """Set the callback for the begin of a pass, and for its end."""
        self.on_plan, self.on_deliver = deliveries, plans

    def connect(self, connect: Connect) -> None:
        """Read from the memory of a shared host, if the pool shares one."""
        if not self._spec.hosts:
            return
        transfer = connect((self._spec.hosts[self.index],))
        self.read = lambda size, alone_ns, now_ns: transfer(size, self.read_done, now_ns, alone_ns)

    def submit(self, task: int, now_ns: int) -> int:
        """Queue a task that is ready now; return when the next pass begins."""
        self._queues[self._tasks.place(task)].append((self.served, now_ns, task))
        self._queued_tokens += max(1, self._tasks.tokens[task])
        self.served += 1
        return NEVER if self._batch else self.next_ns()

    # The passes: an engine resource, ranked with the planners.

    def next_ns(self) -> int:
        """Return when the next pass begins."""
        queue = self._oldest()
        if self._batch or not queue:
            return NEVER
        most, at = self._spec.max_batch, queue[0][1] + self._spec.wait_ns
        if len(queue) >= most:
            at = min(at, queue[most - 1][1])
        return max(at, self._free_ns)

    def fire(self, now_ns: int) -> int:
        """Begin a pass over the tasks that have waited longest, of one stage; the next begins when this one ends."""
        tasks, queue = self._tasks, self._oldest()
        batch = [queue.popleft()[2] for _ in range(min(len(queue), self._spec.max_batch))]
        self._batch = batch
        self.steps += 1
        for task in batch:
            tasks.start_ns[task] = now_ns
        alone_ns = tasks.pass_ns(batch)
        size = tasks.pass_bytes(batch)
        if self.read is None or not size:
            self._finish_ns = now_ns + alone_ns
        else:
            self.read(size, alone_ns, now_ns)
        self.on_plan()
        return NEVER

    def settle(self, now_ns: int) -> None:
        """Do nothing: the client changes only at the instants that ``next_ns`` returns."""

    def read_done(self, now_ns: int) -> None:
        """Note that the reads of a pass from a shared memory are complete."""
        self._finish_ns = now_ns
        self.on_plan()

    # Deliveries: see pools/deliveries.py.

    def next_delivery_ns(self) -> int:
        """Return when the running pass ends."""
        return self._finish_ns

    def announce(self, now_ns: int) -> list[int]:
        """Return nothing: tasks leave only when a pass ends."""
        return []

    def deliver(self, now_ns: int) -> list[int]:
        """Return the tasks of the pass that ends now."""
        if self._finish_ns > now_ns:
            return []
        batch, self._batch, self._finish_ns = self._batch, [], NEVER
        self._ended = len(batch) + (self._ended if self._free_ns == now_ns else 0)
        self._free_ns = now_ns
        for task in batch:
            self._tasks.finish_ns[task] = now_ns
            self._queued_tokens -= max(1, self._tasks.tokens[task])
        self.busy_ns += now_ns - self._tasks.start_ns[batch[0]]
        self.on_deliver()
        return batch

    # What routing may ask.

    def outstanding(self, now_ns: int) -> int:
        """Number of tasks submitted and not finished before ``now_ns``."""
        ended = self._ended if self._free_ns == now_ns else 0
        return sum(map(len, self._queues)) + len(self._batch) + ended

    def queued_tokens(self, now_ns: int) -> int:
        """Tokens of the tasks submitted and not delivered; their number, where a pass does not depend on them."""
        return self._queued_tokens

    def keep_load(self) -> None:
        """Do nothing: the client has no KV, and the compiler refuses policies that read it."""

    def load(self, now_ns: int) -> NoReturn:
        """Raise RuntimeError: the client has no KV."""
        raise RuntimeError("a batched client has no KV")

    def _oldest(self) -> deque[tuple[int, int, int]]:
        """The tasks of the stage whose task waits longest; empty where none waits."""
        oldest = self._none
        for queue in self._queues:
            if queue and (not oldest or queue[0] < oldest[0]):
                oldest = queue
        return oldest
