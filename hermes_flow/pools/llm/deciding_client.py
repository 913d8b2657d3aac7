"""An LLM client whose scheduler decides every step: its clock, and its interface to engine, coordinator and routers.

Time is kept in picoseconds. Without overlap a step is decided when the one before it ends. With overlap it is decided
when the one before it starts, with the results up to the step before that; it starts when the one before it ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hermes_flow.pools.client import Calls, PoolClient
from hermes_flow.pools.deliveries import Deliveries
from hermes_flow.pools.llm.counted_load import CountedLoad
from hermes_flow.pools.llm.decided_steps import DecidedSequence, Step, StepScheduler
from hermes_flow.pools.llm.inbox import Inbox
from hermes_flow.pools.llm.step_log import pack_segment, segment_rows
from hermes_flow.pools.llm.tasks import LLMTasks
from hermes_flow.pools.outbox import Outbox, due
from hermes_flow.pools.progress import NOTHING, Progress
from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.resource import Resource
from hermes_flow.program.units import NEVER, PS_PER_NS
from hermes_flow.recording.recording import ClientRecord


class DecidingClient(PoolClient):
    """One client. ``plan_ps`` is the next decision, ``tail_ps`` the end of the last step that was decided.

    ``sequence_of`` makes the state in which ``scheduler`` keeps a task.
    """

    deliveries: Deliveries
    __slots__ = (
        "_cancelled",
        "_cost",
        "_counts",
        "_cut",
        "_decided_ps",
        "_delivered",
        "_ending",
        "_gaps",
        "_in_flight",
        "_inbox",
        "_leaving",
        "_load",
        "_log",
        "_nominal",
        "_notify",
        "_outbox",
        "_overlap",
        "_scheduler",
        "_sequence_of",
        "_sequences",
        "_stopped_ps",
        "_stretch",
        "_twice_pairs",
        "deliveries",
        "index",
        "on_plan",
        "plan_ps",
        "tail_ps",
        "tasks",
    )

    def __init__(
        self,
        index: int,
        spec: LLMClientSpec,
        tasks: LLMTasks,
        calls: Calls,
        scheduler: StepScheduler,
        sequence_of: Callable[[int], DecidedSequence],
    ) -> None:
        self.index = index
        self.tasks = tasks
        self.plan_ps = NEVER
        self.tail_ps = 0
        self.deliveries = Deliveries(self, calls.done, calls.begun)
        self._outbox = Outbox(0)
        self._notify = calls.notify
        self._inbox = Inbox(tasks, spec.cost.ingest_ns)
        self._cost = self._nominal = spec.cost
        self._stopped_ps = NEVER  # when the client ended; what leaves at this instant or later never does
        self._counts = True  # equal decodes are counted, and not decided one by one
        self._overlap = bool(spec.lookahead)
        self._scheduler = scheduler
        self._sequence_of = sequence_of
        self._sequences: dict[
            int, DecidedSequence
        ] = {}  # tasks that the scheduler has seen and that are not over
        self._in_flight: Step | None = None
        self._decided_ps = 0  # the instant of the last decision
        self._stretch = -1  # equal decodes that are known to follow; -1: not counted since the last decision
        self._ending: deque[tuple[int, int]] = (
            deque()
        )  # (end, task) of tasks that end after they were last counted
        self._delivered: tuple[int, frozenset[int]] = (
            -1,
            frozenset(),
        )  # the last result: its instant, its tasks
        self._log = bytearray()
        self._gaps: dict[int, int] = {}  # inter-token gap in ps → how many
        self._twice_pairs = 0
        self._load: CountedLoad | None = None
        self._leaving: set[int] = set()  # tasks that were taken back, and that the scheduler still has
        self._cut: list[tuple[int, int]] = []  # tasks that were taken back, and when their last step ends
        self._cancelled: list[DecidedSequence] = []  # those of them that end with the next result
        self.on_plan = _nothing

    # What the coordinator and the engine use.

    @property
    def plans(self) -> Resource:
        """The client itself: it decides steps independently of its deliveries."""
        return self

    def on_change(self, deliveries: Callable[[], None], plans: Callable[[], None]) -> None:
        """Set the callback for changed deliveries; plans change only when tasks are submitted."""
        self.on_plan = deliveries

    def submit(self, task: int, now_ns: int) -> int:
        """Queue a task that is ready now; the scheduler sees it after the engine's ingest time."""
        self._inbox.submit(task, now_ns)
        if self._load is not None:
            self._load.in_hand.add(task)
        return self.next_ns()

    def set_pace(self, factor: float, now_ns: int) -> None:
        """Let each step that is decided from now on take ``factor`` times its time; see ``PoolClient``."""
        self._advance(now_ns * PS_PER_NS)
        self._stretch = -1
        self._counts = factor == 1.0
        self._cost = self._nominal if factor == 1.0 else self._nominal.scaled(factor)

    def withdraw(self, task: int, now_ns: int) -> int:
        """Take back a task that nobody waits for; the scheduler hears of it before its next decision."""
        self._advance(now_ns * PS_PER_NS)
        over = 0 <= self.tasks.finish_ps[task] < (now_ns + 1) * PS_PER_NS
        if not over and (task in self._inbox or task in self._sequences or task in self._late()):
            self._outbox.withdraw(task)
            if self._load is not None:
                self._load.drop(task)
            if self._inbox.withdraw(task, now_ns):
                self._leaving.add(task)
            self.on_plan()
        return self.next_ns()

    def next_ns(self) -> int:
        """Return the instant of the next decision with visible results, or of the next arrival."""
        if not self._notify:
            return NEVER
        at, arriving = self.plan_ps, self._inbox.queue
        if at < NEVER:
            at = self._stretch_end_ps()
        if arriving and arriving[0][0] < at:
            at = arriving[0][0]
        return at // PS_PER_NS if at < NEVER else NEVER

    def fire(self, now_ns: int) -> int:
        """Process the arrivals and decisions due within this nanosecond; return when the next decision is due."""
        self._advance((now_ns + 1) * PS_PER_NS)
        self.on_plan()
        return self.next_ns()

    def settle(self, now_ns: int) -> None:
        """Bring the scheduler's state up to, but not including, ``now_ns``."""
        self._advance(now_ns * PS_PER_NS if now_ns < NEVER else NEVER)

    def next_delivery_ns(self) -> int:
        """Return when the next task is delivered."""
        at = self._outbox.next_ps(NEVER)
        return at // PS_PER_NS if at < NEVER else NEVER

    def announce(self, now_ns: int) -> list[int]:
        """Return nothing: KV does not leave layer by layer."""
        return []

    def deliver(self, now_ns: int) -> list[int]:
        """Return the tasks delivered within this nanosecond."""
        return due(self._outbox.ends, now_ns)

    # What routing may ask.

    def outstanding(self, now_ns: int) -> int:
        """Number of tasks submitted and not delivered before ``now_ns``."""
        now_ps = now_ns * PS_PER_NS
        self._advance(now_ps)
        self._forget_ended(now_ps)
        return len(self._inbox) + len(self._sequences) + len(self._ending) - len(self._leaving)

    def queued_tokens(self, now_ns: int) -> int:
        """The known remaining work: prompt tokens not yet computed, and one token for each decoding sequence."""
        outstanding = self.outstanding(now_ns)
        prompts = self._scheduler.fresh() + len(self._inbox)
        return self._backlog() + outstanding - prompts

    def stop(self, now_ns: int) -> None:
        """End at ``now_ns``; a step in progress stays in the record as a whole."""
        self._advance(now_ns * PS_PER_NS)
        self._stopped_ps = (now_ns + 1) * PS_PER_NS
        cuts = self.tasks.cuts
        for task, noted_ns in self._cut:  # taken back, and in a step that is in progress
            computed, answer, end_ns = cuts.get(task, (0, 0, 0))
            if end_ns == noted_ns > now_ns:
                late = self.tasks.finish_ps[task] >= self._stopped_ps
                cuts[task] = (computed, max(0, answer - late), now_ns)
        for task in self._leaving & self._sequences.keys():
            self.tasks.cut_short(task, self.progress(task), now_ns)

    def progress(self, task: int) -> Progress:
        """Return how far a task was that the client had in hand as it stopped; see ``PoolClient``.

        The result of the step in progress is known already, but its tokens have not left.
        """
        tasks, sequence = self.tasks, self._sequences.get(task)
        if sequence is None:
            late = tasks.finish_ps[task] >= self._stopped_ps
            return Progress(tasks.prompt[task], tasks.generated[task] - 1, -1) if late else NOTHING
        late = bool(sequence.out) and sequence.delivered_ps >= self._stopped_ps
        return Progress(sequence.prompt_done, sequence.out - late, -1)

    def leaves_ns(self, task: int, now_ns: int) -> int:
        """Return when the scheduler may have let a task go that was taken back: after its next plan."""
        now_ps = now_ns * PS_PER_NS
        self._advance(now_ps)
        self._forget_ended(now_ps)
        if task not in self._leaving:
            return now_ns
        ends = [end_ps // PS_PER_NS for end_ps, ended in self._ending if ended == task]
        return max(now_ns, ends[0] if ends else self.next_ns()) + 1

    def queue_length(self, now_ns: int) -> int:
        """Return the number of tasks of which no decision before ``now_ns`` has computed anything."""
        self._advance(now_ns * PS_PER_NS)
        return len(self._inbox) + self._scheduler.fresh()

    def kv_use(self, now_ns: int) -> float:
        """Return the share of KV blocks that sequences hold by all decisions before ``now_ns``."""
        self._advance(now_ns * PS_PER_NS)
        return self._scheduler.kv_use

    def keep_load(self) -> None:
        """Record the figures of ``load`` from now on; this is called before the first task arrives."""
        if self._load is None:
            self._load = CountedLoad(self.tasks, self._inbox, self._written, self._backlog)

    def load(self, now_ns: int) -> CountedLoad:
        """The load of the client from all events before ``now_ns``, recorded since ``keep_load``."""
        assert self._load is not None
        now_ps = now_ns * PS_PER_NS
        self._advance(now_ps)
        self._forget_ended(now_ps)
        if self._delivered[0] < now_ps:
            self._delivered = (-1, frozenset())
        return self._load

    def _backlog(self) -> int:
        """Tokens of prompts that no step has computed or computes."""
        return self._scheduler.missing_tokens() + self._inbox.tokens()

    def _written(self, task: int) -> int:
        """Tokens of a task's answer that were delivered before the instant of the last ``load``."""
        sequence = self._sequences.get(task)
        if sequence is None:
            return self.tasks.output[task] - 1 if self.tasks.finish_ps[task] >= 0 else 0
        return sequence.out - (task in self._delivered[1])

    def _forget_ended(self, now_ps: int) -> None:
        ending = self._ending
        while ending and ending[0][0] < now_ps:
            task = ending.popleft()[1]
            if task in self._leaving:
                self._leaving.remove(task)
            elif self._load is not None:
                self._load.end(task)

    # The clock.

    def _advance(self, until_ps: int) -> None:
        """Handle all arrivals and decisions before ``until_ps``; an arrival goes before a decision of its instant."""
        arriving = self._inbox.queue
        while True:
            plan_ps = self.plan_ps
            if arriving and arriving[0][0] <= plan_ps:
                if arriving[0][0] >= until_ps:
                    return
                at, task = arriving.popleft()
                if task < 0:
                    self._see_withdrawal(~task, at)
                    continue
                self._take_in(task, at)
                if plan_ps >= NEVER:
                    self.plan_ps = max(at, self.tail_ps)
                continue
            if plan_ps >= until_ps:
                return
            if self._equal_steps() and self._run_equally(until_ps):
                continue
            self._decide(plan_ps)

    def _take_in(self, task: int, at_ps: int) -> None:
        sequence = self._sequences[task] = self._sequence_of(task)
        sequence.arrival_ps = at_ps
        self._scheduler.enqueue(sequence)
        self._stretch = -1

    def _late(self) -> list[int]:
        """The tasks whose last token is written by a step that is not over."""
        return [task for _, task in self._ending]

    def _see_withdrawal(self, task: int, at_ps: int) -> None:
        """Tell the scheduler that nobody waits for a task."""
        self._inbox.withdrawals -= 1
        self._stretch = -1
        sequence = self._sequences.get(task)
        if sequence is None:  # over by now
            return
        if self._scheduler.withdraw(sequence):
            sequence.finished = True
            if sequence.computed:  # it ran
                self._note_cut(task, sequence.prompt_done, sequence.out, self.tail_ps)
            elif sequence.out:  # it was thrown out
                self._note_cut(task, sequence.prompt, sequence.out, sequence.delivered_ps)
            del self._sequences[task]
            self._leaving.discard(task)
        elif self._scheduler.cancels:
            self._cancelled.append(sequence)

    def _decide(self, now_ps: int) -> None:
        """Decide the next step and deliver the result that is due after that."""
        self._stretch = -1
        self._decided_ps = now_ps
        step = self._scheduler.decide()
        self._after_decision(now_ps)
        before = self._in_flight
        if step is not None:
            start = now_ps if before is None else before.end_ps
            self._begin(step, start)
        if self._overlap:
            self._in_flight = step
        else:
            before = step
        if before is not None:
            self.plan_ps = before.end_ps
            self._deliver(before)
        elif step is None and not self._scheduler.rest():
            self.plan_ps = NEVER
        if self._in_flight is not None:
            for prefill in self._in_flight.prefills:
                prefill.sequence.in_flight = True
            for sequence in self._in_flight.decodes:
                sequence.in_flight = True

    def _after_decision(self, now_ps: int) -> None:
        """Take note of what a decision has done besides its step."""

    def _begin(self, step: Step, start_ps: int) -> None:
        """Time a step, and take note of what it does."""
        tasks = self.tasks
        start_ps, end_ps = self._times(start_ps, self._duration_ps(step))
        for sequence in step.retracted:
            tasks.preemptions[sequence.task] = tasks.preemptions.get(sequence.task, 0) + 1
        chunks = joined = 0
        for prefill in step.prefills:
            task = prefill.sequence.task
            if tasks.start_ps[task] < 0:
                tasks.start_ps[task] = start_ps
                if prefill.context:
                    tasks.cached[task] = prefill.context
            chunks += prefill.tokens
            joined += prefill.last
            self._twice_pairs += prefill.tokens * (2 * prefill.context + prefill.tokens)
        self._log += pack_segment(start_ps, end_ps, 1, len(step.decodes), step.context, chunks, joined)
        step.end_ps = self.tail_ps = end_ps

    def _duration_ps(self, step: Step) -> int:
        """Return how long a step takes by itself."""
        parts = [(prefill.tokens, prefill.context) for prefill in step.prefills]
        return self._cost.step_ps(parts, len(step.decodes), step.context)

    def _times(self, start_ps: int, duration_ps: int) -> tuple[int, int]:
        """Return when a step begins and ends that can begin at ``start_ps`` and takes so long by itself."""
        return start_ps, start_ps + duration_ps

    def _deliver(self, step: Step) -> None:
        """Hand out the tokens of a step that ends at ``step.end_ps``."""
        end_ps = step.end_ps
        written: list[int] = []
        for prefill in step.prefills:
            sequence = prefill.sequence
            sequence.in_flight = False
            if prefill.last and not sequence.finished:
                written.append(sequence.task)
                if not self._write(sequence, end_ps):
                    self._scheduler.prefilled(prefill)
        for sequence, retractions in zip(step.decodes, step.retractions, strict=True):
            if sequence.finished or sequence.retractions != retractions:
                continue
            sequence.in_flight = False
            written.append(sequence.task)
            self._write(sequence, end_ps)
        if self._cancelled:
            self._cancel(end_ps)
        if self._load is not None:
            self._delivered = (end_ps, frozenset(written))

    def _cancel(self, end_ps: int) -> None:
        """End the sequences that were withdrawn before the decision of the step that was decided last."""
        for sequence in self._cancelled:
            if not sequence.finished:
                self._finish(sequence, end_ps)
        self._cancelled.clear()

    def _write(self, sequence: DecidedSequence, end_ps: int) -> bool:
        """Deliver one token; return whether it was the last one."""
        tasks, task = self.tasks, sequence.task
        sequence.out += 1
        if sequence.out == 1:
            if tasks.first_ps[task] < 0:
                tasks.first_ps[task] = end_ps
        else:
            gap = end_ps - sequence.delivered_ps
            self._gaps[gap] = self._gaps.get(gap, 0) + 1
        sequence.delivered_ps = end_ps
        tasks.generated[task] = sequence.out
        if sequence.out < sequence.output:
            return False
        self._finish(sequence, end_ps)
        return True

    def _finish(self, sequence: DecidedSequence, end_ps: int) -> None:
        """Let a sequence be over, and free what it holds."""
        task = sequence.task
        if task in self._leaving:
            self._note_cut(task, sequence.prompt_done, sequence.out, end_ps)
        sequence.finished = True
        self.tasks.finish_ps[task] = end_ps
        self._free(sequence)
        del self._sequences[task]
        self._ending.append((end_ps, task))
        if self._notify and task not in self._leaving:
            self._outbox.ends.append((end_ps, task))

    def _note_cut(self, task: int, computed: int, answer: int, end_ps: int) -> None:
        """Note what was done of a task that was taken back, by the step that ends at ``end_ps``."""
        self.tasks.cuts[task] = (computed, answer, end_ps // PS_PER_NS)
        self._cut.append((task, end_ps // PS_PER_NS))

    def _free(self, sequence: DecidedSequence) -> None:
        """Free what a sequence that is over holds."""
        self._scheduler.ended(sequence)

    # Stretches of equal decode steps, which are counted and not decided one by one.

    def _equal_steps(self) -> int:
        if self._stretch < 0:
            self._stretch = 0 if self._cancelled or not self._counts else self._scheduler.equal_decodes()
        return self._stretch

    def _pace(self) -> tuple[int, int]:
        """Return how long the next step of the stretch takes, and by how much each later one is longer."""
        cost, decodes = self._cost, len(self._scheduler.running)
        return cost.decode_ps[decodes] + cost.context_ps * self._scheduler.context, cost.context_ps * decodes

    def _stretch_end_ps(self) -> int:
        """Return the instant of the first decision that is not of the present stretch."""
        steps = self._equal_steps()
        if not steps:
            return self.plan_ps
        first, growth = self._pace()
        if not self._overlap:
            return self.plan_ps + steps * first + growth * (steps * (steps - 1) // 2)
        assert self._in_flight is not None
        steps -= 1  # the last decision of the stretch is made when the step before its own begins
        return self._in_flight.end_ps + steps * first + growth * (steps * (steps - 1) // 2)

    def _run_equally(self, until_ps: int) -> bool:
        """Make those decisions of the stretch that come before ``until_ps`` and the next arrival that is tried."""
        arriving = self._inbox.queue
        heeded = self._inbox.withdrawals or self._scheduler.admits()
        if arriving and heeded and arriving[0][0] < until_ps:
            until_ps = arriving[0][0]
        return self._count_steps(self._stretch, until_ps) > 0

    def _count_steps(self, most: int, until_ps: int) -> int:
        """Make at most so many decisions of the stretch, all before ``until_ps``, and return their number."""
        scheduler = self._scheduler
        decodes = len(scheduler.running)
        duration, growth = self._pace()
        start = self.plan_ps if self._in_flight is None else self._in_flight.end_ps
        at, end, steps = self.plan_ps, start, 0
        delivered: list[int] = []
        while steps < most and at < until_ps:
            delivered.append(end if self._overlap else end + duration)
            at, end = (end, end + duration) if self._overlap else (end + duration, end + duration)
            duration += growth
            steps += 1
        if not steps:
            return 0
        self._log += pack_segment(start, end, steps, decodes, scheduler.context, 0, 0)
        self._tell_gaps(delivered)
        scheduler.decode_equally(steps)
        self._stretch -= steps
        self.plan_ps, self.tail_ps = at, end
        if self._in_flight is not None:
            self._in_flight = scheduler.last_decode(end)
        if self._load is not None:
            self._delivered = (delivered[-1], frozenset([one.task for one in scheduler.running]))
        return steps

    def _tell_gaps(self, delivered: list[int]) -> None:
        """Take note of the gaps between tokens that every running sequence is delivered at these instants."""
        gaps, running = self._gaps, self._scheduler.running
        for sequence in running:
            gap = delivered[0] - sequence.delivered_ps
            gaps[gap] = gaps.get(gap, 0) + 1
            sequence.delivered_ps = delivered[-1]
        before = delivered[0]
        for at in delivered[1:]:
            gaps[at - before] = gaps.get(at - before, 0) + len(running)
            before = at

    # What is left behind.

    def record(self, pool: int) -> ClientRecord:
        """Return the steps of the client and their totals."""
        segments: NDArray[np.int64] = segment_rows(self._log, [])
        gaps = np.array(sorted(self._gaps.items()), dtype=np.int64).reshape(-1, 2)
        return ClientRecord(
            pool=pool,
            client=self.index,
            capacity=1,
            tasks=self._inbox.served,
            busy_ns=int((segments[:, 1] - segments[:, 0]).sum()) // PS_PER_NS,
            segments=segments,
            kv_peak_blocks=self._scheduler.peak_blocks,
            context_ps=self._nominal.context_ps,
            prefill_pairs=0.5 * self._twice_pairs,
            even_gaps=gaps,
        )


def _nothing() -> None:
    """Do nothing: nobody waits."""
