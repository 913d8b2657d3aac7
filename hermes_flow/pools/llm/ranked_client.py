"""An LLM client with data-parallel attention: several schedulers whose steps begin and end together.

The ranks share the experts of a mixture, so that every forward pass needs all of them. As in vLLM, each rank has its
own seats, token budget, KV blocks, prefix cache and queue, and plans its own step; a step lasts as long as that of
the slowest rank. A rank without work takes part with a dummy batch, which costs nothing here beside the others. A
front end (``rank_choice``) gives each request to a rank as it comes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hermes_flow.pools.llm.batch import RunningBatch
from hermes_flow.pools.llm.engine_client import EngineClient
from hermes_flow.pools.llm.equal_steps import EqualSteps
from hermes_flow.pools.llm.load import LLMLoad
from hermes_flow.pools.llm.rank import Rank
from hermes_flow.pools.llm.rank_choice import RANK_CHOICES
from hermes_flow.pools.llm.scheduler import BatchingPolicy
from hermes_flow.pools.llm.step_log import log_entering, pack_segment, segment_rows, single_steps
from hermes_flow.pools.llm.tasks import LLMTasks
from hermes_flow.pools.llm.waiting import WaitingQueue
from hermes_flow.pools.outbox import due
from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.units import NEVER, PS_PER_NS


class RankedClient(EngineClient):
    """An LLM client of ``spec.attention_ranks`` ranks, each with a batching policy of its own.

    ``plan_ps`` is when all ranks plan next, ``tail_ps`` the end of the last planned step. While every rank decodes or
    idles, a run of steps is planned at once: until a sequence ends, blocks run out, a request comes that could join,
    or another rank becomes the slowest.
    """

    __slots__ = (
        "_choice",
        "_experts_ps",
        "_log",
        "_lookahead",
        "_nominal",
        "_rank_of",
        "_run",
        "_runs",
        "_single_steps",
        "_width",
        "plan_ps",
        "ranks",
        "tail_ps",
    )

    def __init__(
        self,
        index: int,
        spec: LLMClientSpec,
        tasks: LLMTasks,
        policies: Sequence[BatchingPolicy],
        done: Callable[[int, int], None],
        begun: Callable[[int, int], None] = lambda task, now_ns: None,
        *,
        notify: bool,
    ) -> None:
        super().__init__(index, spec, tasks, policies[0], done, begun, notify=notify)
        own = replace(spec, kv_blocks=spec.kv_blocks // spec.attention_ranks)
        self.ranks = [Rank(self, own, policy) for policy in policies]
        self._choice = RANK_CHOICES[spec.rank_routing](self.ranks)
        self._rank_of: dict[int, Rank] = {}
        self._nominal = spec.cost
        self._experts_ps = spec.cost.experts_ps
        self._width = spec.cost.tokens_per_decode
        self._lookahead = bool(spec.lookahead)
        self._single_steps = spec.speculation is not None
        self.plan_ps = NEVER
        self.tail_ps = 0
        self._run: EqualSteps | None = None  # the run in progress
        self._runs: dict[int, int] = {}  # start of a run → by how much each of its steps is longer
        self._log = bytearray()  # of all ranks together

    # What the coordinator and the engine use.

    def watch(self, tokens: Mapping[int, list[int]], written: Callable[[int, int, int], None]) -> None:
        """Call ``written(task, token, now_ns)`` when a token in ``tokens`` is generated; each list is reversed."""
        from hermes_flow.pools.llm.watched_tokens import WatchedTokens

        for rank in self.ranks:
            rank.watched = WatchedTokens(rank.batch, self.tasks, tokens, self.outbox)
        self._deliveries.watch(self.outbox.watched, written)

    def set_pace(self, factor: float, now_ns: int) -> None:
        """Let each step that is planned from now on take ``factor`` times its time; see ``PoolClient``."""
        self._advance(now_ns * PS_PER_NS)
        self._cut_run(now_ns * PS_PER_NS)
        cost = self._nominal if factor == 1.0 else self._nominal.scaled(factor)
        self._experts_ps = cost.experts_ps
        for rank in self.ranks:
            rank.cost = cost.of_rank

    def submit(self, task: int, now_ns: int) -> int:
        """Give a task that is ready now to a rank, whose scheduler sees it after the engine's ingest time."""
        if task not in self._rank_of:
            self._assign(task, now_ns)
        self._inbox.submit(task, now_ns)
        return self.next_ns()

    def ask(self, task: int, now_ns: int) -> int:
        """Queue a task whose KV lies on another client, on the rank that will get it; see ``PoolClient``."""
        self._assign(task, now_ns)
        return super().ask(task, now_ns)

    def hold(self, task: int, now_ns: int) -> None:
        """Let a task whose context is looked up take its place in a rank's queue; ``submit`` follows."""
        self._assign(task, now_ns)
        super().hold(task, now_ns)

    def _assign(self, task: int, now_ns: int) -> None:
        now_ps = now_ns * PS_PER_NS
        if now_ps >= self._choice.report_ps:
            self._advance(now_ps)
            self._report(now_ps)
        self._rank_of[task] = self.ranks[self._choice.choose()]

    def _report(self, now_ps: int) -> None:
        """Let the front end learn of the ranks what it is told before anything happens at ``now_ps``."""
        if now_ps >= self._choice.report_ps:
            self._choice.report(now_ps)

    def bring(self, task: int, now_ns: int) -> int:
        """Note that the KV of a task that had asked for blocks is here; see ``PoolClient``."""
        self._advance(now_ns * PS_PER_NS)
        # The plan that granted the blocks may lie within this nanosecond: it does not see the KV.
        self._inbox.bring(task, max(now_ns * PS_PER_NS, self._rank_of[task].batch.now_ps + 1))
        return self.next_ns()

    def let_go(self, task: int, now_ns: int) -> int:
        """Free the KV of a prompt that no client awaits any more; see ``PoolClient``."""
        now_ps = now_ns * PS_PER_NS
        self._advance(now_ps)
        rank = self._rank_of[task]
        self._before_blocks_are_freed(rank, now_ps)
        if rank.batch.let_go(task):
            self._blocks_were_freed(now_ps)
        return self.next_ns()

    def _free_reserved(self, task: int, now_ps: int) -> None:
        rank = self._rank_of[task]
        self._before_blocks_are_freed(rank, now_ps)
        rank.batch.unreserve(task)
        self._blocks_were_freed(now_ps)

    def _before_blocks_are_freed(self, rank: Rank, now_ps: int) -> None:
        if self._run is not None:
            self._take_begun(rank, now_ps)
            rank.batch.note_peak()

    def _blocks_were_freed(self, now_ps: int) -> None:
        """Plan as soon as possible if somebody waits, from outside a plan."""
        if not any(rank.waiting for rank in self.ranks):
            return
        if self.plan_ps >= NEVER:
            self.plan_ps = self.tail_ps = max(now_ps, self.tail_ps, self.ranks[0].batch.now_ps)
        else:
            self._cut_run(now_ps)

    def next_ns(self) -> int:
        """Return the instant of the next plan or arrival, if anyone waits for its results."""
        if not self._notify and not self._asks:
            return NEVER
        at, arriving = self.plan_ps, self._inbox.queue
        if arriving and arriving[0][0] < at:
            at = arriving[0][0]
        return at // PS_PER_NS if at < NEVER else NEVER

    def next_delivery_ns(self) -> int:
        """Return when the next task is delivered or announced, or when a decode run that may end tasks is over."""
        at = self.outbox.next_ps(NEVER if self._run is None else self.plan_ps)
        return at // PS_PER_NS if at < NEVER else NEVER

    def deliver(self, now_ns: int) -> list[int]:
        """Return the tasks delivered within this nanosecond; nothing is planned yet."""
        self._advance((now_ns + 1) * PS_PER_NS, planning=False)
        return due(self.outbox.ends, now_ns)

    # What routing may ask.

    def outstanding(self, now_ns: int) -> int:
        """Number of tasks submitted and not delivered before ``now_ns``."""
        now_ps = now_ns * PS_PER_NS
        self._advance(now_ps)
        admitted = sum(rank.admitted(now_ps) for rank in self.ranks)
        return self.queue_length(now_ns) + admitted - len(self._leaving)

    def queue_length(self, now_ns: int) -> int:
        """Return the number of tasks that no plan before ``now_ns`` has admitted."""
        self._advance(now_ns * PS_PER_NS)
        return len(self._inbox) + sum(len(rank.waiting) for rank in self.ranks)

    def queued_tokens(self, now_ns: int) -> int:
        """The known remaining work: prompt tokens not yet computed, and one token for each decoding sequence."""
        now_ps = now_ns * PS_PER_NS
        self._advance(now_ps)
        return self._backlog() + sum(
            rank.admitted(now_ps) - len(rank.batch.prefilling) for rank in self.ranks
        )

    def _backlog(self) -> int:
        """Tokens of prompts that no plan has scheduled yet, one where the KV only has to come."""
        return self._inbox.tokens() + sum([rank.batch.backlog for rank in self.ranks])

    def load(self, now_ns: int) -> LLMLoad:
        """The load of the client from all events before ``now_ns``, recorded since ``keep_load``."""
        self._advance(now_ns * PS_PER_NS)
        return self._load_at(now_ns * PS_PER_NS)

    def stop(self, now_ns: int) -> None:
        """End at ``now_ns``; a step in progress stays in the record as a whole."""
        self._advance(now_ns * PS_PER_NS)
        if self._run is not None:
            self._cut_run(now_ns * PS_PER_NS)
            self._close_run()

    def kv_use(self, now_ns: int) -> float:
        """Return the share of KV blocks, over all ranks, that sequences hold by all plans before ``now_ns``."""
        now_ps = now_ns * PS_PER_NS
        self._advance(now_ps)
        if self._run is not None:
            for rank in self.ranks:
                self._take_begun(rank, now_ps)
        batches = self.batches
        return 1.0 - sum(batch.free for batch in batches) / sum(batch.blocks for batch in batches)

    # What is recorded.

    @property
    def batches(self) -> list[RunningBatch]:
        """The batches of running sequences, one for each rank."""
        return [rank.batch for rank in self.ranks]

    def lanes(self) -> list[NDArray[np.int64]]:
        """Return the rows of the steps of all ranks together, which are one pass each."""
        left = [at for rank in self.ranks for at in rank.batch.abandoned_ps]
        return [single_steps(segment_rows(self._log, left), self._runs)]

    def resume_gaps_ps(self) -> list[int]:
        """Return the inter-token gaps of sequences that were preempted and resumed, on any rank."""
        return [gap for batch in self.batches for gap in batch.resume_gaps_ps]

    def rank_rows(self) -> tuple[NDArray[np.int64], ...]:
        """Return the rows of each rank, one per step in which it had work."""
        return tuple(
            single_steps(segment_rows(rank.log, rank.batch.abandoned_ps), self._runs) for rank in self.ranks
        )

    @property
    def busy_ps(self) -> int:
        """The time that the client worked, in picoseconds."""
        (rows,) = self.lanes()
        return int((rows[:, 1] - rows[:, 0]).sum())

    # What its parts use.

    def log_entering(self, emitted_ps: int, left_ps: list[int]) -> None:
        """Note a sequence that enters a rank with a token of that instant, after others left (``step_log``)."""
        log_entering(self._log, emitted_ps, left_ps)

    def _queue_of(self, task: int) -> WaitingQueue:
        rank = self._rank_of.get(task)
        return self.waiting if rank is None else rank.waiting  # a task that is only announced waits nowhere

    def _batch_of(self, task: int) -> RunningBatch:
        return self._rank_of[task].batch

    # The schedulers' loop.

    def _advance(self, until_ps: int, *, planning: bool = True) -> None:
        """Handle all arrivals and plans before ``until_ps``; an arrival goes before a plan of the same instant.

        Without ``planning``, stop before the first plan, but end the run that is over by then.
        """
        inbox = self._inbox.queue
        while True:
            plan_ps = self.plan_ps
            if inbox and inbox[0][0] <= plan_ps:
                if inbox[0][0] >= until_ps:
                    return
                self._report(inbox[0][0])
                at, task = inbox.popleft()
                if task < 0:
                    self._see_withdrawal(~task, at)
                else:
                    self._take_in(task, at)
            elif plan_ps < until_ps:
                self._report(plan_ps)
                if self._run is not None:
                    self._close_run()
                if not planning:
                    return
                self._plan(plan_ps)
            else:
                return

    def _take_in(self, task: int, at: int) -> None:
        """Let the scheduler of its rank see a task."""
        rank, tasks = self._rank_of[task], self.tasks
        if task in tasks.reserved:
            rank.batch.fill(task)
            rank.waiting.enter_ready(task)
        else:
            rank.waiting.enter(task, at)
        rank.batch.backlog += self._tokens_left(task)
        if self.plan_ps >= NEVER:
            # A delivery is rounded down to nanoseconds: who it releases may arrive within its step.
            self.plan_ps = self.tail_ps = max(at, self.tail_ps)
        elif rank.waiting[0] == task:
            self._cut_run(at)

    def _see_withdrawal(self, task: int, at: int) -> None:
        """Let a task go at the next plan; a run ends with the step before that one."""
        self._inbox.withdrawals -= 1
        self._withdrawn.append(task)
        if self.plan_ps >= NEVER:
            self._withdraw_all()
        else:
            self._cut_run(at)

    def _withdraw_all(self) -> None:
        gone: dict[int, list[int]] = {}
        for task in self._withdrawn:
            gone.setdefault(self.ranks.index(self._rank_of[task]), []).append(task)
        for place, leaving in gone.items():
            rank = self.ranks[place]
            self._withdrawn[:] = leaving
            unseated = self._take_out([rank.batch], max(rank.batch.now_ps, self.tail_ps))
            for _, admissions in rank.in_flight if unseated else ():
                admissions[:] = [one for one in admissions if one not in unseated]

    def _plan(self, now_ps: int) -> None:
        """Let every rank plan its part of the next step, or of a run of steps."""
        ranks = self.ranks
        for rank in ranks:
            rank.release(now_ps)
        if self._withdrawn:
            self._withdraw_all()
        planned = [rank for rank in ranks if rank.plan(self.tail_ps)]
        if planned:
            single = self._single_steps or any(rank.single for rank in planned)
            if single or any(rank.held_back for rank in ranks if rank not in planned):
                self._take_step(planned, now_ps)
            else:
                self._begin_run(planned)
        elif self.tail_ps > now_ps:
            self.plan_ps = self.tail_ps
        elif not any(rank.requeued for rank in ranks):
            self.plan_ps = NEVER
        # Else the last sequence of a rank has preempted itself, and those behind it have their turn.

    def _take_step(self, planned: list[Rank], now_ps: int) -> None:
        """Take one step, which lasts as long as that of the slowest rank."""
        start, tokens = self.tail_ps, sum([rank.tokens for rank in planned])
        end = start + max([rank.step_ps() for rank in planned])
        if self._experts_ps:
            end += self._experts_ps[tokens]
        ended = [(rank, rank.commit(start, end)) for rank in planned]
        decodes, context, joined, chunks = self._totals(planned)
        self._log += pack_segment(start, end, 1, decodes, context, chunks, joined)
        gained = decodes + sum([rank.completes for rank in planned])
        for rank in planned:
            for gaining, before in rank.more:
                gained += gaining
                self._log += pack_segment(end, end, 0, gaining, before, 0, 0)
        if self._load is not None:
            self._load.emit(now_ps, end, gained)
        for rank, own in ended:
            self._end(rank, own, end)
        self.tail_ps = end
        self.plan_ps = start if self._lookahead else end

    def _totals(self, planned: list[Rank]) -> tuple[int, int, int, int]:
        return (
            sum([rank.decodes for rank in planned]),
            sum([rank.context for rank in planned]),
            sum([rank.joined for rank in planned]),
            sum([rank.chunks for rank in planned]),
        )

    def _begin_run(self, planned: list[Rank]) -> None:
        """Plan steps in which every rank decodes or idles, as long as the slowest rank stays the slowest."""
        paces = [(rank.first_ps, rank.growth_ps) for rank in planned]
        first, growth = max(paces)
        steps = min([rank.most_steps() for rank in planned])
        for other, faster in paces:
            if faster > growth:
                steps = min(steps, (first - other) // (faster - growth) + 1)
        decodes = sum([rank.decodes for rank in planned])
        if self._experts_ps:
            first += self._experts_ps[decodes * self._width]
        self._run = run = EqualSteps(self.tail_ps, first, growth, planned, lookahead=self._lookahead)
        if self._load is not None:
            self._load.begin_run(self.tail_ps, decodes, first, growth)
        self._set_run(run, steps)

    def _set_run(self, run: EqualSteps, steps: int) -> None:
        run.steps = steps
        self.tail_ps, self.plan_ps = run.end_ps(), run.plan_ps()

    def _cut_run(self, at: int) -> None:
        """End the run, if there is one, after the last step that is planned before ``at``; it keeps at least one."""
        run = self._run
        if run is not None:
            steps = run.planned_before(at)
            if steps < run.steps:
                self._set_run(run, steps)

    def _take_begun(self, rank: Rank, now_ps: int) -> None:
        """Take the rank's blocks of the steps of the run that were planned before ``now_ps``; it is not cut."""
        run = self._run
        if run is not None:
            self._report(now_ps)  # before what was in flight as the run began is released
            steps = min(run.planned_before(now_ps), run.steps)
            if rank in run.ranks:
                rank.begun_steps(steps)
            else:
                rank.idle_steps(steps)

    def _close_run(self) -> None:
        """Let the run have happened."""
        run = self._run
        assert run is not None
        self._run = None
        start, steps, end = run.start_ps, run.steps, self.tail_ps
        if steps > 1:
            self._runs[start] = run.growth_ps
        decodes, context, _, _ = self._totals(run.ranks)
        self._log += pack_segment(start, end, steps, decodes, context, 0, 0)
        ended = [(rank, rank.end_run(start, end, steps)) for rank in run.ranks]
        if self._load is not None:
            self._load.end_run(self.plan_ps, steps, end)
        for rank, own in ended:
            self._end(rank, own, end)

    def _end(self, rank: Rank, ended: list[int], end_ps: int) -> None:
        """Note that sequences of a rank end; they hold seats and blocks until the step is over."""
        if not ended:
            return
        rank.in_flight.append((end_ps, ended))
        running = rank.batch.running
        if self._load is not None:
            self._load.end([running[admission] for admission in ended], end_ps)
        if self._notify:
            for admission in ended:
                if not self._leaving or running[admission] not in self._leaving:
                    self.outbox.ends.append((end_ps, running[admission]))
