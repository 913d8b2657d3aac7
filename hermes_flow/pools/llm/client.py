"""An LLM client, as the coordinator, routing and the engine of events see it.

Its scheduler's loop is in ``step_loop.py``. Whoever asks for something at an instant first lets the loop make all
plans before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from hermes_flow.pools.llm.batch import RunningBatch
from hermes_flow.pools.llm.decode_run import steps_begun
from hermes_flow.pools.llm.earliest_end import EarliestEnd, ShortestSteps
from hermes_flow.pools.llm.load import LLMLoad
from hermes_flow.pools.llm.progress import LastDecodes
from hermes_flow.pools.llm.scheduler import BatchingPolicy
from hermes_flow.pools.llm.step_log import segment_rows
from hermes_flow.pools.llm.step_loop import StepLoop
from hermes_flow.pools.llm.tasks import LLMTasks
from hermes_flow.pools.llm.turns import PlanInTurn
from hermes_flow.pools.outbox import due
from hermes_flow.pools.progress import Progress
from hermes_flow.pools.shared_device import SharedDevice
from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.resource import Resource
from hermes_flow.program.units import NEVER, PS_PER_NS
from hermes_flow.routing.unfinished import Unfinished


class LLMClient(StepLoop):
    """One LLM client with its deliveries, and the figures that others may ask for."""

    __slots__ = ("_earliest", "_last_decodes", "_nominal", "_polls_kv", "_shares_device", "_shortest")

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
        shortest: ShortestSteps | None = None,
    ) -> None:
        """``shortest``: where given, the client is fired only when an answer may leave, not at each plan."""
        super().__init__(index, spec, tasks, policy, done, begun, notify=notify)
        self._nominal = spec.cost
        self._polls_kv = spec.polls_kv
        self._shares_device = False
        self._last_decodes: LastDecodes | None = None  # as it stopped
        self._shortest = shortest
        self._earliest = EarliestEnd(self, shortest, done) if notify and shortest is not None else None

    # What the coordinator and the engine use.

    def set_pace(self, factor: float, now_ns: int) -> None:
        """Let each step that is planned from now on take ``factor`` times its time; see ``PoolClient``.

        A slow client logs each step by itself: what reads runs of steps knows how they grow at the usual pace.
        """
        now_ps = now_ns * PS_PER_NS
        self._advance(now_ps)
        if self.run_steps > 1:
            self._cut_run(now_ps)
        self._single_steps = self._counts_single or factor != 1.0
        self._use(self._nominal if factor == 1.0 else self._nominal.scaled(factor))

    def watch(self, tokens: Mapping[int, list[int]], written: Callable[[int, int, int], None]) -> None:
        """Call ``written(task, token, now_ns)`` when a token in ``tokens`` is generated; each list is reversed."""
        from hermes_flow.pools.llm.watched_tokens import WatchedTokens

        self._earliest = self._shortest = None  # tokens leave between the ends of answers
        self._watched = WatchedTokens(self.batch, self.tasks, tokens, self.outbox)
        self._deliveries.watch(self.outbox.watched, written)

    def take_turns(self, device: SharedDevice) -> None:
        """Plan each step only when the device, which other clients use too, is free; before the first task comes."""
        self._earliest = self._shortest = None
        self._counts_single = self._single_steps = self._notify = self._shares_device = True
        self._policy = PlanInTurn(self._policy, device)

    def submit(self, task: int, now_ns: int) -> int:
        """Queue a task that is ready now; the scheduler sees it after the engine's ingest time."""
        if self._inbox.submit(task, now_ns):
            self._next_heeded = False
        if self._earliest is not None:
            return self._earliest.submitted(task, now_ns * PS_PER_NS)
        return self.next_ns()

    def ask(self, task: int, now_ns: int) -> int:
        """Queue a task whose KV lies on another client; see ``PoolClient``."""
        at_ns = super().ask(task, now_ns)
        self._next_heeded = False  # it may come before KV that is noticed later
        return at_ns

    @property
    def none_awaited(self) -> bool:
        """Whether nobody awaits any task that the client has in hand; see ``PoolClient``."""
        return self._earliest is not None and self._earliest.none_awaited

    @property
    def takes_known(self) -> bool:
        """Whether tasks may come ahead of their instants, which no subclass and nobody who looks at loads expects."""
        return type(self) is LLMClient and not self._notify and self._load is None

    def submit_known(self, tasks: list[int], at_ns: list[int]) -> None:
        """Queue tasks that will be ready at these instants; see ``PoolClient``."""
        self._inbox.submit_known(tasks, at_ns)

    def withdraw(self, task: int, now_ns: int) -> int | None:
        """Take back a task that nobody waits for; see ``EngineClient``."""
        coming = bool(self.batch.resumed) and task in self.batch.resumed and task in self._inbox
        at = super().withdraw(task, now_ns)
        if coming and task not in self._inbox:  # the scheduler has not seen it
            self.batch.backlog -= self.batch.resumed[task]
        return at if self._earliest is None else self._earliest.withdrawn(now_ns * PS_PER_NS)

    def bring(self, task: int, now_ns: int) -> int:
        """Note that the KV of a task that had asked for blocks is here; see ``PoolClient``."""
        self._advance(now_ns * PS_PER_NS)
        # The plan that granted the blocks may lie within this nanosecond: it does not see the KV.
        at_ps = max(now_ns * PS_PER_NS, self.batch.now_ps + 1)
        if self._inbox.bring(task, self._noticed_ps(at_ps) if self._polls_kv else at_ps):
            self._next_heeded = False
        return self.next_ns()

    def _noticed_ps(self, at_ps: int) -> int:
        """Return when KV that arrives at ``at_ps`` is in the queue: just after a step begins, whose end tells of it.

        It is the step after the one that runs, and with look-ahead the one after that, which is not launched either.
        An idle client looks all the time.
        """
        if self.plan_ps >= NEVER and self.tail_ps <= at_ps:
            return at_ps
        if self.run_steps:
            steps = self._steps_planned(at_ps - self.run_start_ps) if at_ps > self.run_start_ps else 1
            if steps < self.run_steps:
                last = self._first_ps + self._growth_ps * (steps - 1)
                return self.run_start_ps + steps * last - self._growth_ps * (steps * (steps - 1) // 2) + 1
        return self.tail_ps + 1

    def let_go(self, task: int, now_ns: int) -> int:
        """Free the KV of a prompt that no client awaits any more; see ``PoolClient``."""
        now_ps = now_ns * PS_PER_NS
        self._advance(now_ps)
        self._before_blocks_are_freed(now_ps)
        if self.batch.let_go(task):
            self._blocks_were_freed(now_ps)
        return self.next_ns()

    def _free_reserved(self, task: int, now_ps: int) -> None:
        self._before_blocks_are_freed(now_ps)
        self.batch.unreserve(task)
        self._blocks_were_freed(now_ps)

    def _before_blocks_are_freed(self, now_ps: int) -> None:
        if self.run_steps:
            self._take_begun(now_ps)
            self.batch.note_peak()

    def _blocks_were_freed(self, now_ps: int) -> None:
        """Plan as soon as possible if somebody waits, from outside a plan."""
        if not self.waiting:
            return
        if self.plan_ps >= NEVER:
            self.plan_ps = self.tail_ps = max(now_ps, self.tail_ps, self.batch.now_ps)
        elif self.run_steps > 1:
            self._cut_run(now_ps)

    def next_ns(self) -> int:
        """Return the instant of the next plan or arrival, if anyone waits for its results."""
        if not self._notify and not self._asks:
            return NEVER
        at = self.plan_ps
        batch = self.batch
        if not (self.waiting or batch.decodes or batch.prefilling or self._withdrawn or self._shares_device):
            at = NEVER  # nothing to plan: seats and blocks of what ends are free when somebody looks
        arriving = self.arriving
        if arriving and arriving[0][0] < at:
            at = arriving[0][0]
        return at // PS_PER_NS if at < NEVER else NEVER

    def next_delivery_ns(self) -> int:
        """Return when the next task is delivered or announced, or when a decode run that may end tasks is over."""
        at = self.outbox.next_ps(self.plan_ps if self.run_steps and self._notify else NEVER)
        return at // PS_PER_NS if at < NEVER else NEVER

    @property
    def deliveries(self) -> Resource:
        """The resource that hands over what leaves the client."""
        return self._deliveries if self._earliest is None else self._earliest

    @property
    def plans(self) -> Resource | None:
        """The client itself, if it has to be fired at each of its plans; else None."""
        return self if self._earliest is None else None

    def deliver(self, now_ns: int) -> list[int]:
        """Return the tasks delivered within this nanosecond; nothing is planned yet."""
        self._advance((now_ns + 1) * PS_PER_NS, planning=False)
        return due(self.outbox.ends, now_ns)

    @property
    def countable(self) -> bool:
        """Whether the client can be fired whenever an answer may leave."""
        return self._shortest is not None

    def count(self, unfinished: Unfinished, place: int) -> None:
        """Report from now on what comes and ends; the client is then fired whenever an answer may leave."""
        if self._earliest is None:
            assert self._shortest is not None
            self._earliest = EarliestEnd(self, self._shortest, lambda task, now_ns: None)
            self._notify = True
        self.tasks.waited = bytearray()
        self._earliest.count(unfinished, place)
        self._inbox.count(unfinished, place)

    def outstanding(self, now_ns: int) -> int:
        """Number of tasks submitted and not delivered before ``now_ns``."""
        now_ps = now_ns * PS_PER_NS
        if self.plan_ps < now_ps or self.arriving:
            self._advance(now_ps)
        return len(self._inbox) + len(self.waiting) + self._admitted(now_ps) - len(self._leaving)

    def _admitted(self, now_ps: int) -> int:
        """Number of tasks admitted and not delivered before ``now_ps``, also if preempted with the last token."""
        running = self.batch.running
        count = len(running)
        for at, ends in self._in_flight:
            count -= sum(admission in running for admission in ends)
            if at >= now_ps:
                count += len(ends)
        return count

    def queued_tokens(self, now_ns: int) -> int:
        """The known remaining work: prompt tokens not yet computed, and one token for each sequence that can decode.

        True output lengths are not read.
        """
        now_ps = now_ns * PS_PER_NS
        if self.plan_ps < now_ps or self.arriving:
            self._advance(now_ps)
        return self._backlog() + self._admitted(now_ps) - len(self.batch.prefilling)

    def _backlog(self) -> int:
        """Tokens of prompts that no plan has scheduled yet, one where the KV only has to come."""
        return self.batch.backlog + self._inbox.tokens()

    def load(self, now_ns: int) -> LLMLoad:
        """The load of the client from all events before ``now_ns``, recorded since ``keep_load``."""
        now_ps = now_ns * PS_PER_NS
        if self.plan_ps < now_ps or self.arriving:
            self._advance(now_ps)
        return self._load_at(now_ps)

    def stop(self, now_ns: int) -> None:
        """End at ``now_ns``; a step in progress stays in the record as a whole."""
        now_ps = now_ns * PS_PER_NS
        self._advance(now_ps)
        if self.run_steps:
            self._cut_run(now_ps)
            self._close_run()
        self._last_decodes = LastDecodes(self._log, now_ps + PS_PER_NS - 1, self._nominal.context_ps)
        self._end_withdrawn(now_ns)

    def progress(self, task: int) -> Progress:
        """Return how far a task was that the client had in hand as it stopped; see ``PoolClient``."""
        if self._last_decodes is None or self._speculation is not None:
            return super().progress(task)
        if task in self._gang and self.batch.seat_of(task):
            return self._last_decodes.progress_in_gang(self.tasks, self._gang, task)
        return self._last_decodes.progress(self.batch, task)

    def kv_tokens(self, task: int, now_ns: int) -> int:
        """Return the tokens of a sequence that decodes here and whose KV is computed; see ``PoolClient``."""
        now_ps = now_ns * PS_PER_NS
        self._advance(now_ps)
        batch = self.batch
        admission = batch.seat_of(task)
        if not admission or admission in batch.prefilling:
            return 0
        answer = LastDecodes(self._log, now_ps, self._nominal.context_ps).written(batch, task)
        if self.run_steps and now_ps > self.run_start_ps and self.tasks.finish_ps[task] < 0:
            begun = steps_begun(now_ps - self.run_start_ps, self._first_ps, self._growth_ps)
            answer += min(max(0, begun - 1), self.run_steps)
        return self.tasks.prompt[task] + answer - 1 if answer else 0

    def resume(self, task: int, last_ps: int, now_ns: int) -> int:
        """Queue a task that goes on from the tokens that another client has given it; see ``PoolClient``."""
        self.batch.resume(task, last_ps)
        at_ns = self.submit(task, now_ns)
        if self._load is not None:
            self._load.goes_on(self.tasks.generated[task])
        return at_ns

    def kv_use(self, now_ns: int) -> float:
        """Return the share of KV blocks that sequences hold by all plans before ``now_ns``."""
        now_ps = now_ns * PS_PER_NS
        self._advance(now_ps)
        if self.run_steps:
            self._take_begun(now_ps)
        return 1.0 - self.batch.free / self.batch.blocks

    def holds(self, first: int, last: int) -> bool:
        """Return whether one of the tasks ``first`` … ``last − 1`` is in hand."""
        coming = [task for _, task in (*self.arriving, *self.outbox.ends)]
        return any(first <= task < last for task in (*coming, *self.waiting, *self.batch.running.values()))

    def take_log(self) -> bytes:
        """Return the steps that were logged since the last call, and forget them."""
        log = bytes(self._log)
        self._log.clear()
        return log

    def take_abandoned(self) -> list[int]:
        """Return the ends of prefills that were in vain and are not in the log, and forget them."""
        abandoned = self.batch.abandoned_ps.copy()
        self.batch.abandoned_ps.clear()
        return abandoned

    def segments(self) -> NDArray[np.int64]:
        """Return a row per step or run of equal steps, with the columns STEP_FIELDS of recording/recording.py."""
        return segment_rows(self._log, self.batch.abandoned_ps)

    def lanes(self) -> list[NDArray[np.int64]]:
        """Return the rows of each batch that runs at one time; this client has a single batch."""
        return [self.segments()]

    @property
    def batches(self) -> list[RunningBatch]:
        """The batches of running sequences: one."""
        return [self.batch]

    @property
    def busy_ps(self) -> int:
        """The time that the client worked, in picoseconds."""
        rows = self.segments()
        return int((rows[:, 1] - rows[:, 0]).sum())

    # What bounds on the next end use.

    def advance(self, until_ps: int) -> None:
        """Make all plans before ``until_ps``; no task may come that is seen before then."""
        self._advance(until_ps)

    def advance_to_end(self, now_ns: int) -> None:
        """Make all plans before ``now_ns``, and end a run that is over within this nanosecond."""
        now_ps = now_ns * PS_PER_NS
        self._advance(now_ps)
        if self.run_steps and self.plan_ps < now_ps + PS_PER_NS:
            self._advance(now_ps + PS_PER_NS, planning=False)

    def joining(self, most: int) -> list[int] | None:
        """Return the submitted tasks that do not decode yet; None if they are more than ``most``."""
        arriving, waiting, prefilling = self.arriving, self.waiting, self.batch.prefilling
        if not arriving and not waiting and not prefilling:
            return []
        if len(arriving) + len(waiting) + len(prefilling) > most:
            return None
        running = self.batch.running
        return [*waiting, *(task for _, task in arriving if task >= 0), *(running[one] for one in prefilling)]
