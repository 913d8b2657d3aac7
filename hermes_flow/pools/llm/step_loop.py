"""Plans the steps of one LLM client over its running batch.

Time is kept in picoseconds. The loop alternates between *arrivals* (requests its scheduler sees) and
*plans* (its batching policy fixes the next step, or a whole run of equal decode steps). With look-ahead 0 a
step is planned when the step before it ends; with look-ahead 1 when the step before it starts, and again at
its end if there was nothing to plan.

What a plan decides cannot change later, except that an arrival cuts a decode run after the last step whose
plan came before it; so a run's effects are applied only when it is over.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from hermes_flow.pools.llm.decode_run import steps_begun
from hermes_flow.pools.llm.engine_client import EngineClient
from hermes_flow.pools.llm.queue_and_batch import running_batch
from hermes_flow.pools.llm.recorded_steps import recorded_times
from hermes_flow.pools.llm.scheduler import BatchingPolicy, Completed, Prefills
from hermes_flow.pools.llm.speculative_decoding import Speculation
from hermes_flow.pools.llm.step_log import log_entering, pack_segment
from hermes_flow.pools.llm.tasks import LLMTasks
from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.step_cost import StepCost
from hermes_flow.program.units import NEVER

if TYPE_CHECKING:
    from hermes_flow.pools.llm.watched_tokens import WatchedTokens


class StepLoop(EngineClient):
    """The loop of one client. Policies use ``batch``, ``waiting`` and the ``commit_*`` methods.

    ``plan_ps`` is the next planning instant, ``tail_ps`` the end of the last planned step. ``arriving`` are the tasks
    that the scheduler does not see yet. A decode run in progress has ``run_steps`` steps from ``run_start_ps`` on.
    """

    __slots__ = (
        "_attention_ps",
        "_chunk_ps",
        "_context_ps",
        "_counts_single",
        "_decode_ps",
        "_first_ps",
        "_gang",
        "_growth_ps",
        "_half_length",
        "_in_flight",
        "_log",
        "_next_heeded",
        "_pair_ps",
        "_past_ps",
        "_replayed",
        "_requeued",
        "_sequences_ps",
        "_single_steps",
        "_speculation",
        "_tokens_ps",
        "_watched",
        "arriving",
        "batch",
        "cost",
        "lookahead",
        "plan_ps",
        "run_start_ps",
        "run_steps",
        "tail_ps",
        "tokens_per_decode",
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
        self._use(spec.cost)
        self.lookahead = spec.lookahead
        self.tokens_per_decode = spec.cost.tokens_per_decode
        self._replayed = recorded_times(spec.cost, index)
        self._counts_single = spec.speculation is not None or self._replayed is not None
        self._single_steps = self._counts_single  # runs of equal steps are planned one by one
        self.batch = running_batch(spec, tasks)
        self.plan_ps = NEVER
        self.tail_ps = 0
        self._log = bytearray()
        self.arriving = self._inbox.queue
        self._speculation = None if spec.speculation is None else Speculation(spec.speculation)
        self._watched: WatchedTokens | None = None  # of tokens that somebody waits for
        self._in_flight: deque[tuple[int, list[int]]] = deque()  # ends that still hold seats and blocks
        self._gang: list[int] = []  # the tasks of the last gang
        self.run_steps = 0
        self.run_start_ps = 0
        self._first_ps = 0  # of the first step of the run
        self._growth_ps = 0  # by which each further step of the run takes longer
        self._requeued = False  # the plan that is made has preempted a sequence
        self._next_heeded = False  # the run already ends at the next arrival

    def _use(self, cost: StepCost) -> None:
        """Let the steps to come cost that much. What is read in every step is looked up once, here."""
        self.cost = cost
        self._context_ps, self._decode_ps = cost.context_ps, cost.decode_ps
        self._tokens_ps, self._sequences_ps = cost.tokens_ps, cost.sequences_ps
        self._attention_ps = cost.decode_attention_ps
        self._pair_ps, self._half_length = cost.prefill_pair_ps, cost.prefill_half_length
        self._past_ps, self._chunk_ps = cost.prefill_context_ps, cost.prefill_token_ps

    # What batching policies use.

    def requeue(self, preempted: list[int]) -> None:
        """Put preempted tasks at the head of the queue, the one preempted last first."""
        finish_ps = self.tasks.finish_ps
        self._requeued = True
        # A task whose last token was in flight is over; only its blocks were taken.
        self.waiting.extendleft(task for task in preempted if finish_ps[task] < 0)

    def enter(self, task: int) -> None:
        """Admit a waiting task whose KV is computed already; it decodes with the others."""
        batch = self.batch
        if task in self.tasks.asking:
            self.grant(batch, task)
            return
        batch.enter(task, self.tail_ps)
        if self._watched is not None:
            self._watched.enter(task)
        log_entering(self._log, batch.last_token_ps(task), batch.abandoned_ps)

    def commit_step(self, prefills: Prefills, decodes: int, completed: Completed) -> None:
        """Plan one step of prefill chunks and decodes; ``completed`` are the prefills that end in it.

        ``decodes`` is 0 or the number of all decoding sequences; blocks are already taken.
        """
        batch = self.batch
        cost = self.cost
        start = end = self.tail_ps
        context = 0
        if decodes:
            context = batch.context
            if prefills and cost.mixed_attention_ps:
                end += cost.mixed_attention_ps[decodes] + cost.mixed_context_ps * context
            else:
                end += self._attention_ps[decodes] + self._context_ps * context
        chunks = 0
        if prefills:
            end += cost.prefill_launch_ps
            twice_pairs = 0
            for chunk, past in prefills:  # what StepCost.prefill_ps does
                chunks += chunk
                twice_pairs += chunk * (past + past + chunk)
                end += self._past_ps * past + self._chunk_ps * chunk
                if self._pair_ps:
                    pairs = chunk * (past + 0.5 * chunk)
                    end += int(self._pair_ps * pairs * (1.0 + self._half_length / (chunk + past)) + 0.5)
            self.twice_pairs += twice_pairs
            if cost.scans:
                longest = max([chunk for chunk, _ in prefills])
                tokens = decodes * self.tokens_per_decode + chunks
                end += cost.scan_ps(chunks, longest, len(prefills), tokens)
        if cost.attention_ranks == 1:
            tokens = decodes * self.tokens_per_decode + chunks
            end += self._tokens_ps[tokens] + self._sequences_ps[decodes + len(prefills)]
        else:
            end = start + cost.step_ps(prefills, decodes, context)
        if batch.export_ps:
            end += batch.exporting_ps(completed)
        if batch.copy_ps:
            end += batch.copy_ps
            batch.copy_ps = 0
        if self._replayed is not None:
            end = self._replayed.end_ps(start, end)
        ended = batch.decode(1, end) if decodes else []
        more: list[tuple[int, int]] = []
        if decodes and self._speculation is not None:
            more = self._speculation.gain_more(batch, end, ended)
        joined = batch.join_all(completed, end, ended)
        if not decodes:
            batch.note_peak()
        if self._watched is not None:
            self._watched.note(completed, end)
        if self._load is not None:
            gained = decodes + sum([gaining for gaining, _ in more])
            self._load.emit(batch.now_ps, end, gained + len(completed))
        if ended:
            self._end(ended, end)
        if batch.begun:
            self.outbox.note_begun(batch.begun, start, end)
        self._log += pack_segment(start, end, 1, decodes, context, chunks, 0 if more else joined)
        for place, (gaining, before) in enumerate(more, start=1):
            self._log += pack_segment(end, end, 0, gaining, before, 0, joined if place == len(more) else 0)
        self.tail_ps = end
        self.plan_ps = start if self.lookahead else end

    def commit_decodes(self, limit: int) -> None:
        """Plan at most ``limit`` pure decode steps, up to the first end of a sequence or the last free block.

        Where nobody waits, it also ends at the next arrival, as far as that is known.
        """
        batch, decodes = self.batch, self.batch.decodes
        if self._single_steps:
            self.commit_step([], decodes, [])
            return
        steps = batch.steps_to_end()
        if self._watched is not None:
            steps = min(steps, self._watched.steps())
        if steps > limit:
            steps = limit
        if steps > 1 and batch.free < decodes * (steps // batch.block_size + 1):
            steps = batch.steps_with_blocks(steps)
        self.run_start_ps = start = self.tail_ps
        self._growth_ps = growth = self._context_ps * decodes
        self._first_ps = first = self._decode_ps[decodes] + self._context_ps * batch.context
        if self._load is not None:
            self._load.begin_run(start, decodes, first, growth)
        self._next_heeded = False
        if steps > 1 and self.arriving and not self.waiting:
            self._next_heeded = True
            gone = self.arriving[0][0] - start
            if gone < steps * first + growth * (steps * (steps - 1) // 2):
                steps = min(steps, self._steps_planned(gone))
        self._set_run(steps)

    def commit_gang(self, members: Completed, longest: int) -> None:
        """Plan a whole gang: prompts are padded to ``longest`` and decoded until the last one ends."""
        tasks = self.tasks
        cost = self.cost
        count = len(members)
        start = self.tail_ps
        first = start + cost.step_ps([(longest, 0)] * count, 0, 0)
        steps = max(tasks.output[task] for _, task in members) - 1
        context = count * longest
        grown = steps * context + count * (steps * (steps - 1) // 2)
        end = first + steps * cost.decode_ps[count] + cost.context_ps * grown
        self._gang = [task for _, task in members]
        for task in self._gang:
            tasks.first_ps[task] = first
            tasks.finish_ps[task] = end
        self.twice_pairs += context * longest
        self._log += pack_segment(start, first, 1, 0, 0, context, count)
        if self._load is not None:
            pace = (cost.decode_ps[count] + cost.context_ps * context, cost.context_ps * count)
            self._load.emit(start, first, count)
            self._load.begin_run(first, count, *pace)
            self._load.gang(self._gang, steps, end)
        if steps:
            self._log += pack_segment(first, end, steps, count, context, 0, 0)
        self.batch.note_peak()
        self.batch.begun.clear()
        self._end([admission for admission, _ in members], end)
        self.tail_ps = self.plan_ps = end

    @property
    def deliveries_pending(self) -> bool:
        """Whether ended sequences hold seats and blocks until the running step ends."""
        return bool(self._in_flight)

    # The scheduler's own loop.

    def _advance(self, until_ps: int, *, planning: bool = True) -> None:
        """Handle all arrivals and plans before ``until_ps``; an arrival goes before a plan of the same instant.

        Without ``planning``, stop before the first plan, but end the run that is over by then.
        """
        inbox = self.arriving
        waiting = self.waiting
        in_flight = self._in_flight
        batch = self.batch
        prompt = self.tasks.prompt
        kept, reserved = self.tasks.kept, self.tasks.reserved
        plan = self._policy.plan
        while True:
            plan_ps = self.plan_ps
            if inbox and inbox[0][0] <= plan_ps:
                at, task = inbox[0]
                if at >= until_ps:
                    return
                inbox.popleft()
                if task < 0:
                    self._see_withdrawal(~task, at)
                    continue
                if reserved and task in reserved:
                    batch.fill(task)
                    waiting.enter_ready(task)
                else:
                    waiting.enter(task, at)
                batch.backlog += 1 if kept and task in kept else prompt[task]
                if plan_ps >= NEVER:
                    # A delivery is rounded down to nanoseconds: who it releases may arrive within its step.
                    self.plan_ps = self.tail_ps = max(at, self.tail_ps)
                elif self.run_steps > 1 and waiting[0] == task and not self._next_heeded:
                    self._cut_run(at)
            elif plan_ps < until_ps:
                if self.run_steps:
                    self._close_run()
                if not planning:
                    return
                batch.now_ps = plan_ps
                while in_flight and in_flight[0][0] <= plan_ps:
                    batch.release(in_flight.popleft()[1])
                if self._withdrawn:
                    self._withdraw_all()
                if not plan(self):
                    if self.tail_ps > plan_ps:
                        self.plan_ps = self.tail_ps
                    elif not self._requeued:
                        self.plan_ps = NEVER
                    # Else the last sequence has preempted itself, and those behind it in the queue have their turn.
                self._requeued = False
            else:
                return

    def _see_withdrawal(self, task: int, at: int) -> None:
        """Let a task go at the next plan; a run ends with the step before that one."""
        self._inbox.withdrawals -= 1
        self._withdrawn.append(task)
        if self.plan_ps >= NEVER:
            self._withdraw_all()
        elif self.run_steps > 1:
            self._cut_run(at)

    def _withdraw_all(self) -> None:
        gone = self._take_out([self.batch], max(self.batch.now_ps, self.tail_ps))
        for _, admissions in self._in_flight if gone else ():
            admissions[:] = [one for one in admissions if one not in gone]

    def _end(self, ended: list[int], end_ps: int) -> None:
        self._in_flight.append((end_ps, ended))
        running = self.batch.running
        if self._load is not None:
            self._load.end([running[admission] for admission in ended], end_ps)
        if self._notify:
            waited = self.tasks.waited
            for admission in ended:
                task = running[admission]
                if (not waited or waited[task]) and (not self._leaving or task not in self._leaving):
                    self.outbox.ends.append((end_ps, task))

    def _set_run(self, steps: int) -> None:
        """Let the run have ``steps`` steps, each of which takes a little longer than the one before it."""
        last = self._first_ps + self._growth_ps * (steps - 1)
        self.run_steps = steps
        self.tail_ps = tail = self.run_start_ps + steps * last - self._growth_ps * (steps * (steps - 1) // 2)
        self.plan_ps = tail - last if self.lookahead else tail

    def _steps_planned(self, gone_ps: int) -> int:
        """Return how many steps of an endless run are planned before ``gone_ps`` after its start, at least one."""
        steps = steps_begun(gone_ps, self._first_ps, self._growth_ps)
        return steps + 1 if self.lookahead or not steps else steps

    def _cut_run(self, at: int) -> None:
        """End the run after the last step that is planned before ``at``; it keeps at least one."""
        steps = self._steps_planned(at - self.run_start_ps)
        if steps < self.run_steps:
            self._set_run(steps)

    def _take_begun(self, now_ps: int) -> None:
        """Take the blocks of the steps of the run that were planned before ``now_ps``; it is not cut."""
        steps = min(self._steps_planned(now_ps - self.run_start_ps), self.run_steps)
        if steps > 1 and self._in_flight:
            self._deliver_before_run()
        self.batch.take_iterations(steps)

    def _deliver_before_run(self) -> None:
        """Release what was in flight when the run began: all of it was delivered when its first step began."""
        batch, in_flight = self.batch, self._in_flight
        batch.take_iteration()
        batch.note_peak()
        while in_flight:
            batch.release(in_flight.popleft()[1])

    def _close_run(self) -> None:
        """Let the run have happened."""
        batch = self.batch
        steps = self.run_steps
        self.run_steps = 0
        end = self.tail_ps
        self._log += pack_segment(self.run_start_ps, end, steps, batch.decodes, batch.context, 0, 0)
        if steps > 1 and self._in_flight:
            self._deliver_before_run()
        ended = batch.decode(steps, end)
        if self._watched is not None:
            self._watched.note((), end)
        if self._load is not None:
            self._load.end_run(self.plan_ps, steps, end)
        if ended:
            self._end(ended, end)
