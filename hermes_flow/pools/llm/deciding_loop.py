"""The loop of an LLM client whose scheduler decides every step: arrivals, decisions, and the results of steps.

Time is kept in picoseconds. Without overlap a step is decided when the one before it ends. With overlap it is decided
when the one before it starts, with the results up to the step before that; it starts when the one before it ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from hermes_flow.pools.client import PoolClient
from hermes_flow.pools.llm.counted_load import CountedLoad
from hermes_flow.pools.llm.decided_steps import DecidedSequence, Step, StepScheduler
from hermes_flow.pools.llm.inbox import Inbox
from hermes_flow.pools.llm.step_log import pack_segment
from hermes_flow.pools.llm.tasks import LLMTasks
from hermes_flow.pools.outbox import Outbox
from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.units import NEVER, PS_PER_NS


class DecidingLoop(PoolClient):
    """The loop of one client: ``plan_ps`` is the next decision, ``tail_ps`` the end of the last step that is decided.

    ``sequence_of`` makes the state in which ``scheduler`` keeps a task. With ``notify`` somebody waits for answers.
    """

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
        "_notify",
        "_outbox",
        "_overlap",
        "_scheduler",
        "_sequence_of",
        "_sequences",
        "_stretch",
        "_twice_pairs",
        "plan_ps",
        "tail_ps",
        "tasks",
    )

    def __init__(
        self,
        spec: LLMClientSpec,
        tasks: LLMTasks,
        scheduler: StepScheduler,
        sequence_of: Callable[[int], DecidedSequence],
        *,
        notify: bool,
    ) -> None:
        self.tasks = tasks
        self.plan_ps = NEVER
        self.tail_ps = 0
        self._outbox = Outbox(0)
        self._notify = notify
        self._inbox = Inbox(tasks, spec.cost.ingest_ns)
        self._cost = spec.cost
        self._counts = True  # equal decodes are counted, and not decided one by one
        self._overlap = bool(spec.lookahead)
        self._scheduler = scheduler
        self._sequence_of = sequence_of
        # Tasks that the scheduler has seen and that are not over.
        self._sequences: dict[int, DecidedSequence] = {}
        self._in_flight: Step | None = None
        self._decided_ps = 0  # the instant of the last decision
        self._stretch = -1  # equal decodes that are known to follow; -1: not counted since the last decision
        # (end, task) of tasks that end after they were last counted.
        self._ending: deque[tuple[int, int]] = deque()
        # The last result: its instant, its tasks.
        self._delivered: tuple[int, frozenset[int]] = (-1, frozenset())
        self._log = bytearray()
        self._gaps: dict[int, int] = {}  # inter-token gap in ps → how many
        self._twice_pairs = 0
        self._load: CountedLoad | None = None
        self._leaving: set[int] = set()  # tasks that were taken back, and that the scheduler still has
        # Tasks that were taken back, the end of their last step in ns, that of their last token but for one that is
        # coming in this step, and whether there is such a one
        self._cut: list[tuple[int, int, int, bool]] = []
        self._cancelled: list[DecidedSequence] = []  # those of them that end with the next result

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
                coming = self._coming(sequence)
                self._note_cut(sequence, sequence.prompt_done, self.tail_ps, coming)
            elif sequence.out:  # it was thrown out
                self._note_cut(sequence, sequence.prompt, sequence.delivered_ps)
            del self._sequences[task]
            self._leaving.discard(task)
        elif self._scheduler.cancels:
            self._cancelled.append(sequence)

    def _coming(self, sequence: DecidedSequence) -> bool:
        """Return whether the step in flight, whose result is not delivered yet, writes a token of a sequence."""
        step = self._in_flight
        if step is None or not sequence.in_flight:
            return False
        if any(prefill.last and prefill.sequence is sequence for prefill in step.prefills):
            return True
        decodes = zip(step.decodes, step.retractions, strict=True)
        return any(one is sequence and retractions == one.retractions for one, retractions in decodes)

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
            self._note_cut(sequence, sequence.prompt_done, end_ps)
        sequence.finished = True
        self.tasks.finish_ps[task] = end_ps
        self._free(sequence)
        del self._sequences[task]
        self._ending.append((end_ps, task))
        if self._notify and task not in self._leaving:
            self._outbox.ends.append((end_ps, task))

    def _note_cut(self, sequence: DecidedSequence, computed: int, end_ps: int, coming: bool = False) -> None:
        """Note what was done of a task that was taken back, by the step that ends at ``end_ps``.

        This step writes another token of it where one is ``coming``.
        """
        task, end_ns = sequence.task, end_ps // PS_PER_NS
        self.tasks.cuts[task] = (computed, sequence.out + coming, end_ns)
        self._cut.append((task, end_ns, sequence.delivered_ps, coming))

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
