"""An LLM client with pipeline parallelism: several micro-batches run at once, each on another rank.

As engines do it (vLLM's batch queue), every plan takes the sequences that are not in flight and makes a
micro-batch of them; it goes through the ranks one after another, and while it does, others are planned. So the
running sequences fall into as many micro-batches as there are ranks: what decodes in a micro-batch stays in it until
it ends or is preempted. The chunks of a long prompt follow each other through the ranks, each in the micro-batch
that is planned next. Too few sequences for all ranks leave a bubble.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hermes_flow.pools.llm.batch import RunningBatch
from hermes_flow.pools.llm.engine_client import EngineClient
from hermes_flow.pools.llm.load import LLMLoad
from hermes_flow.pools.llm.queue_and_batch import running_batch
from hermes_flow.pools.llm.scheduler import BatchingPolicy, Completed, Prefills
from hermes_flow.pools.llm.step_log import log_entering, pack_segment, segment_rows
from hermes_flow.pools.llm.tasks import LLMTasks
from hermes_flow.pools.outbox import due
from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.units import NEVER, PS_PER_NS

if TYPE_CHECKING:
    from hermes_flow.pools.llm.watched_tokens import WatchedTokens


class MicroBatch:
    """The sequences that pass the ranks together; the batching policy sees a scheduler of its own.

    ``exit_ps`` is when it leaves the last rank, NEVER while it is not in flight; ``ended`` are then the
    admissions whose last token comes out.
    """

    __slots__ = (
        "_client",
        "batch",
        "ended",
        "exit_ps",
        "log",
        "max_num_batched_tokens",
        "max_num_seqs",
        "tail_ps",
        "tasks",
        "tokens_per_decode",
        "waiting",
        "watched",
    )

    def __init__(self, client: PipelinedClient, batch: RunningBatch) -> None:
        self._client = client
        self.batch = batch
        self.waiting = client.waiting
        self.tasks = client.tasks
        self.max_num_seqs = 0
        self.max_num_batched_tokens = client.max_num_batched_tokens
        self.tokens_per_decode = 1
        self.tail_ps = 0
        self.exit_ps = NEVER
        self.ended: list[int] = []
        self.log = bytearray()
        self.watched: WatchedTokens | None = None  # of tokens that somebody waits for

    @property
    def deliveries_pending(self) -> bool:
        """False: a micro-batch is planned after all of its results have left the last rank."""
        return False

    def requeue(self, preempted: list[int]) -> None:
        """Put preempted tasks at the head of the queue, the one preempted last first."""
        self.waiting.extendleft(preempted)
        self._client.requeued = True

    def enter(self, task: int) -> None:
        """Admit a waiting task whose KV is computed already; it decodes with the others."""
        batch = self.batch
        if task in self.tasks.asking:
            self._client.grant(batch, task)
            return
        batch.enter(task, self.tail_ps)
        if self.watched is not None:
            self.watched.enter(task)
        log_entering(self.log, batch.last_token_ps(task), batch.abandoned_ps)

    def commit_decodes(self, limit: int) -> None:
        """Plan one decode step; other micro-batches may be planned before the next one."""
        self.commit_step([], self.batch.decodes, [])

    def commit_step(self, prefills: Prefills, decodes: int, completed: Completed) -> None:
        """Send one step of prefill chunks and decodes through the ranks."""
        batch = self.batch
        context = batch.context if decodes else 0
        start = self.tail_ps
        copying_ps = batch.copy_ps + (batch.exporting_ps(completed) if batch.export_ps else 0)
        end = self._client.send(prefills, decodes, context, start, copying_ps)
        batch.copy_ps = 0
        ended = batch.decode(1, end) if decodes else []
        joined = batch.join_all(completed, end, ended)
        if not decodes:
            batch.note_peak()
        if self.watched is not None:
            self.watched.note(completed, end)
        self.ended = ended
        self.exit_ps = end
        self._client.note_tokens(batch.now_ps, end, decodes + len(completed))
        if batch.begun:
            self._client.outbox.note_begun(batch.begun, start, end)
        chunks = sum(chunk for chunk, _ in prefills)
        self._client.twice_pairs += sum(chunk * (2 * past + chunk) for chunk, past in prefills)
        self.log += pack_segment(start, end, 1, decodes, context, chunks, joined)


class PipelinedClient(EngineClient):
    """An LLM client of several ranks. A step is planned when its micro-batch leaves the last rank.

    All micro-batches share seats, blocks and the waiting queue. A sequence without a free block preempts the
    one admitted last into its own micro-batch: those of others are in flight.
    """

    __slots__ = (
        "_busy_ps",
        "_flying",
        "_free_ps",
        "_holder",
        "_now_ps",
        "_plan_ps",
        "_spec",
        "micro_batches",
        "requeued",
    )

    def __init__(
        self,
        index: int,
        spec: LLMClientSpec,
        tasks: LLMTasks,
        policy: BatchingPolicy,
        done: Callable[[int, int], None],
        begun: Callable[[int, int], None] = lambda task, now_ns: None,
        *,
        notify: bool,
    ) -> None:
        super().__init__(index, spec, tasks, policy, done, begun, notify=notify)
        first = running_batch(spec, tasks)
        batches = [first, *(running_batch(spec, tasks) for _ in range(spec.pipeline_ranks - 1))]
        for batch in batches[1:]:
            batch.join_client_of(first)
        self.micro_batches = [MicroBatch(self, batch) for batch in batches]
        self._spec = spec
        self._holder = first  # the batch that knows how many blocks are free
        self._free_ps = [0] * spec.pipeline_ranks  # when each rank has done what was planned
        self._busy_ps = 0
        self._plan_ps = NEVER
        self._now_ps = 0
        self.requeued = False  # a plan has just preempted a sequence
        self._flying: deque[MicroBatch] = deque()  # in the order in which they come out

    # What the coordinator and the engine use.

    def watch(self, tokens: Mapping[int, list[int]], written: Callable[[int, int, int], None]) -> None:
        """Call ``written(task, token, now_ns)`` when a token in ``tokens`` is generated; each list is reversed."""
        from hermes_flow.pools.llm.watched_tokens import WatchedTokens

        for part in self.micro_batches:
            part.watched = WatchedTokens(part.batch, self.tasks, tokens, self.outbox)
        self._deliveries.watch(self.outbox.watched, written)

    def submit(self, task: int, now_ns: int) -> int:
        """Queue a task that is ready now; the scheduler sees it after the engine's ingest time."""
        self._inbox.submit(task, now_ns)
        return self.next_ns()

    def bring(self, task: int, now_ns: int) -> int:
        """Note that the KV of a task that had asked for blocks is here; see ``PoolClient``."""
        self._advance(now_ns * PS_PER_NS)
        # The plan that granted the blocks may lie within this nanosecond: it does not see the KV.
        self._inbox.bring(task, max(now_ns * PS_PER_NS, self._now_ps + 1))
        return self.next_ns()

    def let_go(self, task: int, now_ns: int) -> int:
        """Free the KV of a prompt that no client awaits any more; see ``PoolClient``."""
        self._advance(now_ns * PS_PER_NS)
        holding = next((part for part in self.micro_batches if task in part.batch.handing_over), None)
        batch = self.micro_batches[0].batch if holding is None else holding.batch
        if self._give_blocks(batch).let_go(task):
            self._blocks_were_freed(now_ns * PS_PER_NS)
        return self.next_ns()

    def _free_reserved(self, task: int, now_ps: int) -> None:
        self._give_blocks(self.micro_batches[0].batch).unreserve(task)
        self._blocks_were_freed(now_ps)

    def _blocks_were_freed(self, now_ps: int) -> None:
        """Plan as soon as possible if somebody waits, from outside a plan."""
        if self.waiting and len(self._flying) < len(self.micro_batches):
            self._plan_ps = min(self._plan_ps, max(now_ps, self._now_ps))

    def next_ns(self) -> int:
        """Return the instant of the next plan or arrival, if anyone waits for its results."""
        if not self._notify and not self._asks:
            return NEVER
        at = min(self._plan_ps, self._flying[0].exit_ps if self._flying else NEVER)
        arriving = self._inbox.queue
        if arriving and arriving[0][0] < at:
            at = arriving[0][0]
        return at // PS_PER_NS if at < NEVER else NEVER

    def next_delivery_ns(self) -> int:
        """Return when the next task is delivered or announced."""
        at = self.outbox.next_ps(NEVER)
        return at // PS_PER_NS if at < NEVER else NEVER

    def deliver(self, now_ns: int) -> list[int]:
        """Return the tasks delivered within this nanosecond."""
        return due(self.outbox.ends, now_ns)

    def outstanding(self, now_ns: int) -> int:
        """Number of tasks submitted and not delivered before ``now_ns``."""
        self._advance(now_ns * PS_PER_NS)
        running = sum(len(part.batch.running) for part in self.micro_batches)
        return len(self._inbox) + len(self.waiting) + running - len(self._leaving)

    def queued_tokens(self, now_ns: int) -> int:
        """The known remaining work: prompt tokens not yet computed, and one token for each decoding sequence."""
        self._advance(now_ns * PS_PER_NS)
        batches = [part.batch for part in self.micro_batches]
        return self._backlog() + sum(len(batch.running) - len(batch.prefilling) for batch in batches)

    def _backlog(self) -> int:
        """Tokens of prompts that no plan has scheduled yet, one where the KV only has to come."""
        return self._inbox.tokens() + sum([part.batch.backlog for part in self.micro_batches])

    def load(self, now_ns: int) -> LLMLoad:
        """The load of the client from all events before ``now_ns``, recorded since ``keep_load``."""
        now_ps = now_ns * PS_PER_NS
        self._advance(now_ps)
        return self._load_at(now_ps)

    def kv_use(self, now_ns: int) -> float:
        """Return the share of KV blocks that sequences hold by all plans before ``now_ns``."""
        self._advance(now_ns * PS_PER_NS)
        return 1.0 - self._holder.free / self._holder.blocks

    # What is recorded.

    @property
    def batches(self) -> list[RunningBatch]:
        """The batches of running sequences, one for each micro-batch."""
        return [part.batch for part in self.micro_batches]

    def lanes(self) -> list[NDArray[np.int64]]:
        """Return the rows of each micro-batch, one per step."""
        return [segment_rows(part.log, part.batch.abandoned_ps) for part in self.micro_batches]

    @property
    def busy_ps(self) -> int:
        """The time that a rank worked, on average over the ranks."""
        return self._busy_ps // self._spec.pipeline_ranks

    # What micro-batches use.

    def send(self, prefills: Prefills, decodes: int, context: int, start_ps: int, copy_ps: int) -> int:
        """Send a step through the ranks from ``start_ps`` on; return when it leaves the last one."""
        spec = self._spec
        tokens = decodes + sum(chunk for chunk, _ in prefills)
        hop = spec.hop_ps + int(spec.hop_ps_per_token * tokens + 0.5)
        last = spec.cost.step_ps(prefills, decodes, context) + copy_ps
        before = (
            copy_ps if spec.upstream is None else spec.upstream.step_ps(prefills, decodes, context) + copy_ps
        )
        free = self._free_ps
        self._busy_ps += before * (spec.pipeline_ranks - 1) + last
        at = start_ps
        for rank in range(spec.pipeline_ranks - 1):
            at = max(at, free[rank]) + before
            free[rank] = at
            at += hop
        free[-1] = end = max(at, free[-1]) + last
        return end

    def note_tokens(self, planned_ps: int, end_ps: int, tokens: int) -> None:
        """Note that a step planned at ``planned_ps`` will deliver ``tokens`` when it leaves the last rank."""
        if self._load is not None:
            self._load.emit(planned_ps, end_ps, tokens)

    # The scheduler's own loop.

    def _advance(self, until_ps: int) -> None:
        """Handle all arrivals, exits and plans before ``until_ps``, in this order at equal instants."""
        inbox, flying = self._inbox.queue, self._flying
        prompt, kept, reserved = self.tasks.prompt, self.tasks.kept, self.tasks.reserved
        while True:
            at = min(self._plan_ps, flying[0].exit_ps if flying else NEVER)
            if inbox and inbox[0][0] <= at:
                arrival, task = inbox[0]
                if arrival >= until_ps:
                    return
                inbox.popleft()
                if task < 0:
                    self._inbox.withdrawals -= 1
                    self._withdrawn.append(~task)
                    if at >= NEVER:
                        self._withdraw_all()
                    continue
                if reserved and task in reserved:
                    self.micro_batches[0].batch.fill(task)
                    self.waiting.enter_ready(task)
                else:
                    self.waiting.enter(task, arrival)
                self.micro_batches[0].batch.backlog += 1 if task in kept else prompt[task]
                if len(flying) < len(self.micro_batches):
                    # A delivery is rounded down to nanoseconds: who it releases may arrive within its step.
                    self._plan_ps = max(arrival, self._now_ps)
                continue
            if at >= until_ps:
                return
            while flying and flying[0].exit_ps <= at:
                part = flying.popleft()
                part.exit_ps = NEVER
                self._give_blocks(part.batch).release(part.ended)
            self._plan_ps = NEVER
            self._now_ps = at
            if self._withdrawn:
                self._withdraw_all()
            self.requeued = False
            self._plan(at)
            if self.requeued and not flying:
                self._plan_ps = at  # the last sequence has preempted itself: those that wait have their turn

    def _plan(self, now_ps: int) -> None:
        """Plan the micro-batches that are not in flight: first one with sequences, and those without after it."""
        ready = [part for part in self.micro_batches if part.exit_ps >= NEVER]
        ready.sort(key=lambda part: not part.batch.running)
        for part in ready:
            batch = self._give_blocks(part.batch)
            for other in self.micro_batches:
                if other is not part and other.batch.prefilling:
                    batch.adopt_prefills(other.batch)
            others = sum(len(other.batch.running) for other in self.micro_batches if other is not part)
            part.max_num_seqs = self.max_num_seqs - others
            part.tail_ps = max(now_ps, self._free_ps[0])
            batch.now_ps = now_ps
            if self._policy.plan(part):
                self._flying.append(part)
                if self._load is not None and part.ended:
                    self._load.end([batch.running[admission] for admission in part.ended], part.exit_ps)
                if self._notify:
                    running = batch.running
                    self.outbox.ends.extend((part.exit_ps, running[admission]) for admission in part.ended)

    def _withdraw_all(self) -> None:
        """Take out what was withdrawn; what is in flight goes on to the last rank without it."""
        for part in self.micro_batches:
            part.batch.now_ps = self._now_ps
        last = self._flying[-1].exit_ps if self._flying else 0
        self._take_out(self.batches, max(self._now_ps, last))

    def _hold_blocks(self, batch: RunningBatch) -> RunningBatch:
        return self._give_blocks(batch)

    def _give_blocks(self, batch: RunningBatch) -> RunningBatch:
        """Let ``batch`` be the one that knows how many blocks are free."""
        batch.free = self._holder.free
        self._holder = batch
        return batch
