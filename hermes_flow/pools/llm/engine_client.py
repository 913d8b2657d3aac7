"""The interface of an LLM client to the engine and the coordinator."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
from mypy_extensions import mypyc_attr
from numpy.typing import NDArray

from hermes_flow.pools.client import Granted, PoolClient
from hermes_flow.pools.deliveries import Deliveries
from hermes_flow.pools.llm.batch import RunningBatch
from hermes_flow.pools.llm.inbox import Inbox
from hermes_flow.pools.llm.load import LLMLoad
from hermes_flow.pools.llm.queue_and_batch import waiting_queue
from hermes_flow.pools.llm.scheduler import BatchingPolicy
from hermes_flow.pools.llm.tasks import LLMTasks
from hermes_flow.pools.llm.waiting import WaitingQueue
from hermes_flow.pools.outbox import Outbox, due
from hermes_flow.pools.progress import NOTHING, Progress
from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.resource import Resource
from hermes_flow.program.units import NEVER, PS_PER_NS


@mypyc_attr(allow_interpreted_subclasses=True)
class EngineClient(PoolClient):
    """The parts that every LLM client has: a queue ``waiting`` that its scheduler sees, and ``deliveries``.

    ``on_plan`` is called as deliveries may have changed. ``twice_pairs`` counts the query-key pairs of all prefill
    chunks so far, doubled to be whole.
    """

    __slots__ = (
        "_asks",
        "_deliveries",
        "_granted",
        "_grants",
        "_inbox",
        "_leaving",
        "_load",
        "_notify",
        "_policy",
        "_taken_out",
        "_withdrawn",
        "index",
        "max_num_batched_tokens",
        "max_num_seqs",
        "on_plan",
        "outbox",
        "tasks",
        "twice_pairs",
        "waiting",
    )

    def __init__(
        self,
        index: int,
        spec: LLMClientSpec,
        tasks: LLMTasks,
        policy: BatchingPolicy,
        done: Callable[[int, int], None],
        begun: Callable[[int, int], None],
        *,
        notify: bool,
    ) -> None:
        self.index = index
        self.tasks = tasks
        self.max_num_seqs = spec.max_num_seqs
        self.max_num_batched_tokens = spec.max_num_batched_tokens
        self.waiting = waiting_queue(spec, tasks)
        self.outbox = Outbox(spec.kv_layers)  # of answers only if anyone waits for them
        self._deliveries = Deliveries(self, done, begun)
        self.on_plan: Callable[[], None] = lambda: None
        self.twice_pairs = 0
        self._inbox = Inbox(tasks, spec.cost.ingest_ns)
        self._policy = policy
        self._notify = notify
        self._load: LLMLoad | None = None
        self._leaving: set[int] = set()  # tasks that were taken back, and that the scheduler still has
        self._withdrawn: list[int] = []  # those of them that go at the next plan
        self._taken_out: list[int] = []  # those that went at the last one, with which planned steps may go on
        self._asks = 0  # tasks that wait for the blocks of their KV
        self._grants: list[
            tuple[int, int, int | None]
        ] = []  # those that have got them and are not told of it
        self._granted: Granted | None = None

    def grant_to(self, granted: Granted) -> None:
        """Set the callback for tasks that have got the blocks of their KV."""
        self._granted = granted

    @property
    def deliveries(self) -> Resource:
        """The resource that hands over what leaves the client."""
        return self._deliveries

    @property
    def plans(self) -> Resource | None:
        """The client itself: it plans steps independently of its deliveries."""
        return self

    def on_change(self, deliveries: Callable[[], None], plans: Callable[[], None]) -> None:
        """Set the callback for changed deliveries; plans change only when tasks are submitted."""
        self.on_plan = deliveries

    def ask(self, task: int, now_ns: int) -> int:
        """Queue a task whose KV lies on another client; see ``PoolClient``."""
        self._advance(now_ns * PS_PER_NS)
        self._asks += 1
        self._inbox.ask(task, now_ns)
        return self.next_ns()

    def grant(self, batch: RunningBatch, task: int) -> None:
        """Reserve the blocks of a task that has left the queue; its KV may come."""
        batch.backlog -= self._tokens_left(task)
        self._asks -= 1
        blocks, brings = batch.reserve(task)
        self._grants.append((task, blocks * batch.block_size, brings))
        self._inbox.expect(task)

    def withdraw(self, task: int, now_ns: int) -> int | None:
        """Take back a task that nobody waits for; one that is queued or running goes at the next plan."""
        self._advance(now_ns * PS_PER_NS)
        over = 0 <= self.tasks.finish_ps[task] < (now_ns + 1) * PS_PER_NS
        if not over and self._has(task):
            self.outbox.withdraw(task)
            asks, ready = task in self.tasks.asking, task in self.tasks.reserved
            if (asks or ready) and task in self._queue_of(task):
                self._drop_waiting(task, now_ns * PS_PER_NS)
            elif self._inbox.withdraw(task, now_ns):
                self._leaving.add(task)
            elif ready:
                self._free_reserved(task, now_ns * PS_PER_NS)
            self._asks -= asks
            self.on_plan()
        return self.next_ns()

    def _drop_waiting(self, task: int, now_ps: int) -> None:
        """Remove a task from the queue at once that asks for blocks, or has them reserved."""
        self._queue_of(task).withdraw(task)
        self._inbox.forget(task)
        self._batch_of(task).backlog -= self._tokens_left(task)
        self.tasks.forget_kv(task)
        if task in self.tasks.reserved:
            self._free_reserved(task, now_ps)
        else:
            self._blocks_were_freed(now_ps)

    @abstractmethod
    def _free_reserved(self, task: int, now_ps: int) -> None:
        """Free the reserved blocks of a task that was taken back."""

    @abstractmethod
    def _blocks_were_freed(self, now_ps: int) -> None:
        """Plan as soon as possible if somebody waits, from outside a plan."""

    def _has(self, task: int) -> bool:
        """Return whether a task is announced, queued or running here."""
        if task in self._inbox or any(batch.seat_of(task) for batch in self.batches):
            return True
        return task in self._queue_of(task)

    @property
    @abstractmethod
    def batches(self) -> list[RunningBatch]:
        """The batches of running sequences."""

    @abstractmethod
    def lanes(self) -> list[NDArray[np.int64]]:
        """Return the rows of the steps, of each batch that runs at one time."""

    @property
    @abstractmethod
    def busy_ps(self) -> int:
        """The time that the client worked, in picoseconds."""

    def resume_gaps_ps(self) -> list[int]:
        """Return the inter-token gaps of sequences that were preempted and resumed."""
        return self.batches[0].resume_gaps_ps

    def rank_rows(self) -> tuple[NDArray[np.int64], ...]:
        """Return the rows of each rank of data-parallel attention; nothing where there are none."""
        return ()

    def _take_out(self, batches: Sequence[RunningBatch], end_ps: int) -> list[int]:
        """Take the withdrawn tasks out at a plan; return the admissions of those that had a seat.

        ``end_ps`` is when the planned steps are over.
        """
        tasks, unseated = self.tasks, []
        for task in self._withdrawn:
            self._leaving.discard(task)
            self.outbox.withdraw(task)
            over = tasks.finish_ps[task] >= 0
            for batch in batches:
                admission = batch.seat_of(task)
                if admission:
                    computed = batch.prefilling.get(admission, tasks.prompt[task])
                    self._hold_blocks(batch).withdraw(admission)
                    answer = tasks.output[task] if over else tasks.generated[task]
                    tasks.cuts[task] = (min(computed, tasks.prompt[task]), answer, end_ps // PS_PER_NS)
                    unseated.append(admission)
                    break
            else:
                if not over:
                    self._note_preempted(task)
                    self._queue_of(task).withdraw(task)
                    self._batch_of(task).withdraw_waiting(task)
            if not over and self._load is not None:
                self._load.withdraw(task, tasks.generated[task], end_ps)
        self._taken_out, self._withdrawn = self._withdrawn, []
        return unseated

    def _note_preempted(self, task: int) -> None:
        """Note what was done of a withdrawn task that waits: it was preempted after its last token, if it has any."""
        tasks, answer = self.tasks, self.tasks.generated[task]
        if answer and tasks.start_ps[task] >= 0:
            last_ps = self._batch_of(task).last_token_ps(task)
            tasks.cuts[task] = (tasks.prompt[task], answer, last_ps // PS_PER_NS)

    def _queue_of(self, task: int) -> WaitingQueue:
        """Return the queue in which a task waits, or would."""
        return self.waiting

    def _batch_of(self, task: int) -> RunningBatch:
        """Return the batch that counts the tokens of a waiting task."""
        return self.batches[0]

    def _hold_blocks(self, batch: RunningBatch) -> RunningBatch:
        """Return the batch after it has learned how many blocks are free; there is one batch here."""
        return batch

    def _tokens_left(self, task: int) -> int:
        """Return the tokens of a task that waits, one where its KV is computed."""
        return 1 if task in self.tasks.kept else self.tasks.prompt[task]

    @abstractmethod
    def bring(self, task: int, now_ns: int) -> int:
        """Note that the KV of a task that had asked for blocks is here; see ``PoolClient``."""

    @abstractmethod
    def let_go(self, task: int, now_ns: int) -> int:
        """Free the KV of a prompt that no client awaits any more; see ``PoolClient``."""

    def await_data(self, task: int) -> None:
        """Take note of a task that was routed here and whose context or data is on the way; ``submit`` follows."""
        self._inbox.await_data(task)

    def hold(self, task: int, now_ns: int) -> None:
        """Let a task whose context is looked up take its place in the queue; ``submit`` follows."""
        self._inbox.hold(task, now_ns)

    @property
    def served(self) -> int:
        """Number of tasks submitted so far."""
        return self._inbox.served

    def fire(self, now_ns: int) -> int:
        """Process the arrivals and plans due within this nanosecond; return when the next plan is due."""
        self._advance((now_ns + 1) * PS_PER_NS)
        self.on_plan()
        if self._grants:
            self._report_grants(now_ns)
        return self.next_ns()

    def _report_grants(self, now_ns: int) -> None:
        assert self._granted is not None
        grants, self._grants = self._grants, []
        for task, present, brings in grants:
            self._granted(task, present, brings, now_ns)

    def settle(self, now_ns: int) -> None:
        """Bring the scheduler's state up to, but not including, ``now_ns``."""
        self._advance(now_ns * PS_PER_NS if now_ns < NEVER else NEVER)

    def stop(self, now_ns: int) -> None:
        """End at ``now_ns``; a step in progress stays in the record as a whole."""
        self._advance(now_ns * PS_PER_NS)
        self._end_withdrawn(now_ns)

    def _end_withdrawn(self, now_ns: int) -> None:
        """Let tasks end now that were taken back and are in steps that are planned: those end with the client."""
        cuts = self.tasks.cuts
        for task in self._taken_out:
            computed, answer, end_ns = cuts.get(task, (0, 0, 0))
            if end_ns > now_ns:
                cuts[task] = (computed, max(0, answer - 1), now_ns)
        for task in self._withdrawn:
            self.tasks.cut_short(task, self.progress(task), now_ns)

    def progress(self, task: int) -> Progress:
        """Return how far a task was by all steps that were planned as the client stopped; see ``PoolClient``."""
        tasks = self.tasks
        for batch in self.batches:
            admission = batch.seat_of(task)
            if admission:
                answer = tasks.generated[task]
                prompt = batch.prefilling.get(admission, tasks.prompt[task])
                if admission not in batch.prefilling:
                    answer = batch.planned_answer(admission)
                return Progress(min(prompt, tasks.prompt[task]), answer, -1)
        answer = tasks.generated[task]
        return Progress(tasks.prompt[task], answer, -1) if answer else NOTHING

    def leaves_ns(self, task: int, now_ns: int) -> int:
        """Return when the scheduler may have let a task go that was taken back: after its next plan."""
        self._advance(now_ns * PS_PER_NS)
        return max(now_ns, self.next_ns()) + 1 if task in self._leaving else now_ns

    def queue_length(self, now_ns: int) -> int:
        """Return the number of tasks that no plan before ``now_ns`` has admitted."""
        self._advance(now_ns * PS_PER_NS)
        return len(self._inbox) + len(self.waiting)

    @abstractmethod
    def kv_use(self, now_ns: int) -> float:
        """Return the share of KV blocks that sequences hold by all plans before ``now_ns``."""

    @abstractmethod
    def next_ns(self) -> int:
        """Return when the next plan is due, if anyone waits for its results."""

    @abstractmethod
    def next_delivery_ns(self) -> int:
        """Return the next instant at which a task is, or may be, delivered or announced."""

    def announce(self, now_ns: int) -> list[int]:
        """Return the tasks whose first layer of KV is computed within this nanosecond."""
        return due(self.outbox.beginnings, now_ns)

    @abstractmethod
    def deliver(self, now_ns: int) -> list[int]:
        """Return the tasks delivered within this nanosecond."""

    def keep_load(self) -> None:
        """Record the figures of ``load`` from now on; this is called before the first task arrives."""
        if self._load is None:
            assert not self.served
            self._load = self._inbox.load = LLMLoad(self.tasks, self._backlog)

    def _load_at(self, now_ps: int) -> LLMLoad:
        """Return what the client has in hand; its state is that before ``now_ps``."""
        load = self._load
        assert load is not None
        load.now_ps = now_ps
        if load.ends_ps < now_ps:
            load.settle()
        return load

    @abstractmethod
    def _advance(self, until_ps: int) -> None:
        """Handle all that happens before ``until_ps``."""

    @abstractmethod
    def _backlog(self) -> int:
        """Tokens of prompts that no plan has scheduled yet, one where the KV only has to come."""
