"""A client that collects waiting tasks and serves them in one pass: encoders, vector search, rerankers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import ClassVar, NoReturn

from hermes_flow.pools.client import Connect, PoolClient
from hermes_flow.pools.deliveries import Deliveries
from hermes_flow.pools.progress import Progress
from hermes_flow.pools.tasks import PoolTasks
from hermes_flow.program.columns import column, rows
from hermes_flow.program.pools import BatchedClientSpec
from hermes_flow.program.resource import Resource
from hermes_flow.program.units import NEVER, PS_PER_NS, Ints
from hermes_flow.program.work import PassCost
from hermes_flow.recording.recording import OpRecord


class BatchedTasks(PoolTasks):
    """The tasks of one batched pool as columns indexed by task, shared by its clients.

    ``passes`` has the cost of each op that the pool serves, which has ``count`` tasks each; ops with one and the same
    cost are turns of one stage. ``tokens`` are a task's, of all its sequences, where its pass depends on them.
    """

    __slots__ = ("_alone", "_place", "count", "finish_ns", "known_ns", "passes", "start_ns", "tokens")

    def __init__(self, passes: Sequence[PassCost], tokens: list[int], count: int) -> None:
        self.passes = passes
        self.tokens = tokens
        self.known_ns: list[int] | None = None  # measured times of tasks alone in their passes
        self.start_ns = column(len(tokens))
        self.finish_ns = column(len(tokens))
        self.count = count
        # By stage and tokens, how long passes of one task take: most passes are such, and many have as many tokens.
        self._alone: list[dict[int, int]] = [{} for _ in passes]
        first: dict[int, int] = {}
        self._place = [first.setdefault(id(cost), place) for place, cost in enumerate(passes)]

    def reset(self, task: int) -> None:
        """Forget what a client has done for a task that is lost with it, and that begins anew."""
        self.start_ns[task] = self.finish_ns[task] = -1

    def spent(self, task: int, done: Progress, now_ns: int) -> tuple[int, int, int]:
        """Return the ns that were spent on a task which begins anew; it has no tokens of its own."""
        start_ns, finish_ns = self.start_ns[task], self.finish_ns[task]
        until_ns = now_ns if finish_ns < 0 else min(finish_ns, now_ns)
        return 0, 0, max(0, until_ns - start_ns) if start_ns >= 0 else 0

    def record(self, first: int, count: int, client: Ints, ready_ns: Ints) -> OpRecord:
        """Return when each task's pass began and ended."""
        start, finish = (rows(of, first, count) for of in (self.start_ns, self.finish_ns))
        return OpRecord(client, ready_ns, start, finish)

    def place(self, task: int) -> int:
        """Return the stage of a task, as the number of that stage's first op."""
        return self._place[task // self.count]

    def pass_ns(self, batch: list[int]) -> int:
        """Return how long one pass over tasks of one stage takes, with all the bandwidth it can use."""
        if self.known_ns is not None and self.known_ns[batch[0]] >= 0:
            return self.known_ns[batch[0]]
        place = self._place[batch[0] // self.count]
        cost = self.passes[place]
        if cost.step is None:
            return cost.ns[len(batch)]
        alone = self._alone[place]
        if len(batch) == 1 and self.tokens[batch[0]] in alone:
            return alone[self.tokens[batch[0]]]
        each, length = cost.sequences, cost.sequence_tokens
        if length is None:
            rows = [(self.tokens[task] // each, 0) for task in batch for _ in range(each)]
        else:
            rows = [(length, 0)] * (sum([self.tokens[task] for task in batch]) // length)
        duration = cost.step.step_ps(rows, 0, 0) // PS_PER_NS
        if len(batch) == 1:
            alone[self.tokens[batch[0]]] = duration
        return duration

    def lasting(self) -> bool:
        """Return whether every pass is known to take a nanosecond or more."""
        instant = self.known_ns is not None and 0 in self.known_ns
        return not instant and all(_lasts(cost) for cost in self.passes)

    def pass_bytes(self, batch: list[int]) -> int:
        """Return what the pass reads of its host's memory."""
        if self.known_ns is not None and self.known_ns[batch[0]] >= 0:
            return 0  # a measured time has its reads in it
        cost = self.passes[self.place(batch[0])]
        return cost.bytes[len(batch)] if cost.bytes else 0


def _lasts(cost: PassCost) -> bool:
    step = cost.step
    if step is None:
        return min(cost.ns[1:], default=0) > 0
    terms = (step.prefill_launch_ps, step.prefill_pair_ps, step.prefill_half_length, step.prefill_token_ps)
    return min(step.tokens_ps[1:]) + min(step.sequences_ps[1:]) >= PS_PER_NS and min(terms) >= 0


class BatchedClient(PoolClient):
    """One server with one queue; a pass takes up to ``max_batch`` tasks of the stage whose task waits longest.

    With ``wait_ns`` a pass that is not full begins only when its first task has waited so long, and tasks of other
    stages wait with it. ``read`` starts reading from a memory that others read too; the pass ends when that is over.

    A pass begins after all that happens in its nanosecond, so a client that has to wait or to read is fired for it.
    Any other client is not: its pass begins with the first task, and tasks that come in the same nanosecond join it.
    """

    fixed: ClassVar[bool] = True
    deliveries: Resource
    __slots__ = (
        "_abandoned",
        "_batch",
        "_begun_ns",
        "_ended",
        "_finish_ns",
        "_free_ns",
        "_none",
        "_queued_tokens",
        "_queues",
        "_spec",
        "_stage",
        "_tasks",
        "at_once",
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
        self.at_once = not spec.wait_ns and not spec.hosts and tasks.lasting()
        self.deliveries = (
            PassEnds(self, done)
            if self.at_once
            else Deliveries(self, done, lambda task, now_ns: None, fixed=True)
        )
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
        self._stage = 0  # of the running pass
        self._begun_ns = -1
        self._finish_ns = NEVER
        self._free_ns = -1
        self._abandoned: set[int] = set()  # tasks of the pass that were taken back
        self._ended = 0  # tasks delivered at _free_ns, which are finished only after that instant

    @property
    def plans(self) -> BatchedClient | None:
        """The client itself, if it has to be fired for the beginning of a pass; else None."""
        return None if self.at_once else self

    def on_change(self, deliveries: Callable[[], None], plans: Callable[[], None]) -> None:
        """Set the callback for the beginning of a pass, and for its end."""
        self.on_plan, self.on_deliver = deliveries, plans

    def connect(self, connect: Connect) -> None:
        """Read from the memory of a shared host, if the pool shares one."""
        if not self._spec.hosts:
            return
        transfer = connect((self._spec.hosts[self.index],))
        self.read = lambda size, alone_ns, now_ns: transfer(size, self.read_done, now_ns, alone_ns)

    def submit(self, task: int, now_ns: int) -> int:
        """Queue a task that is ready now; return when the next pass begins, or when the running one ends."""
        tasks, batch = self._tasks, self._batch
        stage = tasks.place(task)
        self._queued_tokens += tasks.tokens[task] or 1
        self.served += 1
        if not self.at_once:
            self._queues[stage].append((self.served, now_ns, task))
            return NEVER if batch else self.next_ns()
        if not batch:
            self._begin(stage, [task], now_ns)
        elif now_ns == self._begun_ns and stage == self._stage and len(batch) < self._spec.max_batch:
            self._begin(stage, [*batch, task], now_ns)
        else:
            self._queues[stage].append((self.served, now_ns, task))
        return self._finish_ns

    def _begin(self, stage: int, batch: list[int], now_ns: int) -> None:
        """Begin a pass, or begin it anew with a task that has come in the same nanosecond."""
        tasks = self._tasks
        if not self._batch:
            self.steps += 1
        self._stage, self._batch, self._begun_ns = stage, batch, now_ns
        for task in batch:
            tasks.start_ns[task] = now_ns
        self._finish_ns = now_ns + tasks.pass_ns(batch)

    def end_pass(self, now_ns: int) -> list[int]:
        """End the pass that is over now and begin the next one; return the tasks of the ended pass."""
        over = self._finish_ns <= now_ns
        ended = self.deliver(now_ns)
        if over:
            queue = self._oldest()
            if queue:
                count = min(len(queue), self._spec.max_batch)
                batch = [queue.popleft()[2] for _ in range(count)]
                self._begin(self._tasks.place(batch[0]), batch, now_ns)
        return ended

    def withdraw(self, task: int, now_ns: int) -> int:
        """Take back a task; a pass that it is part of goes on with it."""
        if task in self._batch:
            self._abandoned.add(task)
        queue = self._queues[self._tasks.place(task)]
        for entry in [entry for entry in queue if entry[2] == task]:
            queue.remove(entry)
            self._queued_tokens -= max(1, self._tasks.tokens[task])
        if self.at_once:
            return self._finish_ns
        return NEVER if self._batch else self.next_ns()

    def leaves_ns(self, task: int, now_ns: int) -> int:
        """Return when the pass ends of which a task is part that was taken back."""
        if task not in self._batch:
            return now_ns
        return now_ns + 1 if self._finish_ns >= NEVER else max(now_ns, self._finish_ns) + 1

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
        if self.next_ns() > now_ns:  # the task for whose sake it would begin was taken back
            return self.next_ns()
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

    # Deliveries: see pools/deliveries.py, or PassEnds below.

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
        tasks, batch = self._tasks, self._batch
        self._batch, self._finish_ns = [], NEVER
        begun_ns = tasks.start_ns[batch[0]]
        for task in batch:
            self._queued_tokens -= tasks.tokens[task] or 1
        if self._abandoned:
            batch = [task for task in batch if task not in self._abandoned]
            self._abandoned.clear()
        self._ended = len(batch) + (self._ended if self._free_ns == now_ns else 0)
        self._free_ns = now_ns
        for task in batch:
            tasks.finish_ns[task] = now_ns
        self.busy_ns += now_ns - begun_ns
        if not self.at_once:
            self.on_deliver()
        return batch

    # What routing may ask.

    def outstanding(self, now_ns: int) -> int:
        """Number of tasks submitted and not finished before ``now_ns``."""
        ended = self._ended if self._free_ns == now_ns else 0
        return sum(map(len, self._queues)) + len(self._batch) - len(self._abandoned) + ended

    def stop(self, now_ns: int) -> None:
        """End at ``now_ns``; a pass in progress counts up to then."""
        if self._batch:
            self.busy_ns += now_ns - self._tasks.start_ns[self._batch[0]]
        self.served -= sum(map(len, self._queues)) + len(self._batch)

    def queue_length(self, now_ns: int) -> int:
        """Return the number of tasks that wait for a pass."""
        return sum(map(len, self._queues))

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


class PassEnds:
    """The resource that hands over the tasks of ended passes of a client that begins its passes at once."""

    fixed: ClassVar[bool] = True
    __slots__ = ("_client", "_done")

    def __init__(self, client: BatchedClient, done: Callable[[int, int], None]) -> None:
        self._client = client
        self._done = done

    def next_ns(self) -> int:
        """Return when the running pass ends."""
        return self._client.next_delivery_ns()

    def fire(self, now_ns: int) -> int:
        """Hand over the tasks of a pass that ends now; return when the next one ends."""
        client, done = self._client, self._done
        for task in client.end_pass(now_ns):
            done(task, now_ns)
        return client.next_delivery_ns()

    def settle(self, now_ns: int) -> None:
        """Do nothing: passes end only at the instants that ``next_ns`` returns."""
