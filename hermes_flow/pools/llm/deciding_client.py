"""An LLM client whose scheduler decides every step, as the coordinator, routing and the engine of events see it.

Its loop is in ``deciding_loop.py``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hermes_flow.pools.client import Calls
from hermes_flow.pools.deliveries import Deliveries
from hermes_flow.pools.llm.counted_load import CountedLoad
from hermes_flow.pools.llm.decided_steps import DecidedSequence, StepScheduler
from hermes_flow.pools.llm.deciding_loop import DecidingLoop
from hermes_flow.pools.llm.step_log import segment_rows
from hermes_flow.pools.llm.tasks import LLMTasks
from hermes_flow.pools.outbox import due
from hermes_flow.pools.progress import NOTHING, Progress
from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.resource import Resource
from hermes_flow.program.units import NEVER, PS_PER_NS
from hermes_flow.recording.recording import ClientRecord


class DecidingClient(DecidingLoop):
    """One client with its deliveries, and the figures that others may ask for."""

    deliveries: Deliveries
    __slots__ = ("_nominal", "_stopped_ps", "deliveries", "index", "on_plan")

    def __init__(
        self,
        index: int,
        spec: LLMClientSpec,
        tasks: LLMTasks,
        calls: Calls,
        scheduler: StepScheduler,
        sequence_of: Callable[[int], DecidedSequence],
    ) -> None:
        super().__init__(spec, tasks, scheduler, sequence_of, notify=calls.notify)
        self.index = index
        self.deliveries = Deliveries(self, calls.done, calls.begun)
        self.on_plan = _nothing
        self._nominal = spec.cost
        self._stopped_ps = NEVER  # when the client ended; what leaves at this instant or later never does

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
        for task, noted_ns, token_ps, coming in self._cut:  # taken back, and in a step that is in progress
            computed, answer, end_ns = cuts.get(task, (0, 0, 0))
            if end_ns == noted_ns > now_ns:
                late = coming + (token_ps >= self._stopped_ps)
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
