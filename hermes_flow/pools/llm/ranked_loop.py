"""This loop plans the steps of an LLM client with data-parallel attention, whose ranks begin and end them together.

A step lasts as long as that of the slowest rank. While every rank decodes or idles, a run of steps is planned at
once: until a sequence ends, blocks run out, a request comes that could join, or another rank becomes the slowest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from hermes_flow.pools.llm.batch import RunningBatch
from hermes_flow.pools.llm.engine_client import EngineClient
from hermes_flow.pools.llm.equal_steps import EqualSteps
from hermes_flow.pools.llm.rank import Rank
from hermes_flow.pools.llm.rank_choice import RANK_CHOICES
from hermes_flow.pools.llm.scheduler import BatchingPolicy
from hermes_flow.pools.llm.step_log import log_entering, pack_segment
from hermes_flow.pools.llm.tasks import LLMTasks
from hermes_flow.pools.llm.waiting import WaitingQueue
from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.units import NEVER


class RankedLoop(EngineClient):
    """The loop of ``spec.attention_ranks`` ranks, each with a batching policy of its own.

    ``plan_ps`` is when all ranks plan next, ``tail_ps`` the end of the last planned step.
    """

    __slots__ = (
        "_choice",
        "_cost",
        "_log",
        "_lookahead",
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
        self._cost = spec.cost
        self._width = spec.cost.tokens_per_decode
        self._lookahead = bool(spec.lookahead)
        self._single_steps = spec.speculation is not None
        self.plan_ps = NEVER
        self.tail_ps = 0
        self._run: EqualSteps | None = None  # the run in progress
        self._runs: dict[int, int] = {}  # start of a run → by how much each of its steps is longer
        self._log = bytearray()  # of all ranks together

    # What ranks use.

    def log_entering(self, emitted_ps: int, left_ps: list[int]) -> None:
        """Note a sequence that enters a rank with a token of that instant, after others left (``step_log``)."""
        log_entering(self._log, emitted_ps, left_ps)

    def _queue_of(self, task: int) -> WaitingQueue:
        rank = self._rank_of.get(task)
        return self.waiting if rank is None else rank.waiting  # a task that is only announced waits nowhere

    def _batch_of(self, task: int) -> RunningBatch:
        return self._rank_of[task].batch

    # The schedulers' loop.

    def _report(self, now_ps: int) -> None:
        """Let the front end learn of the ranks what it is told before anything happens at ``now_ps``."""
        if now_ps >= self._choice.report_ps:
            self._choice.report(now_ps)

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
        start, cost = self.tail_ps, self._cost
        if cost.experts_ps:
            experts = cost.experts_ps[sum([rank.tokens for rank in planned])]
            beside = cost.beside_experts_ps
            end = start + max([rank.step_ps() + beside(experts, rank.tokens) for rank in planned])
        else:
            end = start + max([rank.step_ps() for rank in planned])
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
        cost, decodes = self._cost, sum([rank.decodes for rank in planned])
        if cost.experts_ps:
            experts, beside = cost.experts_ps[decodes * self._width], cost.beside_experts_ps
            paces = [
                (rank.first_ps + beside(experts, rank.decodes * self._width), rank.growth_ps)
                for rank in planned
            ]
        else:
            paces = [(rank.first_ps, rank.growth_ps) for rank in planned]
        first, growth = max(paces)
        steps = min([rank.most_steps() for rank in planned])
        for other, faster in paces:
            if faster > growth:
                steps = min(steps, (first - other) // (faster - growth) + 1)
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
