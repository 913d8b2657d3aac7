"""An LLM client: one engine's scheduler loop over a running batch.

Time is kept in picoseconds. The client alternates between *arrivals* (requests its scheduler sees) and
*plans* (its batching policy fixes the next step, or a whole run of equal decode steps). With look-ahead 0 a
step is planned when the step before it ends; with look-ahead 1 when the step before it starts, and again at
its end if there was nothing to plan.

What a plan decides cannot change later, except that an arrival cuts a decode run after the last step whose
plan came before it; so a run's effects are applied only when it is over.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable
from math import sqrt
from typing import Protocol, TypeAlias

from hermes_flow.clients.batch import LLMTasks, RunningBatch
from hermes_flow.compiler.program import PS_PER_NS, LLMClientSpec
from hermes_flow.engine.loop import NEVER


UNLIMITED = 1 << 40

Prefills: TypeAlias = list[tuple[int, int]]  # (chunk, tokens computed before)
Completed: TypeAlias = list[tuple[int, int]]  # (admission, task)


class BatchingPolicy(Protocol):
    """Which sequences go into the next step: plans one step, or one decode run, on the client's state."""

    def plan(self, client: LLMClient) -> bool:
        """Plan what follows ``client.tail_ps``; return False where there is nothing to do."""


class LLMClient:
    """One LLM client. Policies use ``batch``, ``waiting`` and the ``commit_*`` methods.

    ``plan_ps`` is the next planning instant, ``tail_ps`` the end of the last planned step.
    """

    __slots__ = (
        "_done",
        "_in_flight",
        "_inbox",
        "_notify",
        "_outbox",
        "_policy",
        "_run_start_ps",
        "_run_steps",
        "batch",
        "cost",
        "index",
        "lookahead",
        "max_num_batched_tokens",
        "max_num_seqs",
        "plan_ps",
        "segments",
        "served",
        "tail_ps",
        "tasks",
        "waiting",
    )

    def __init__(
        self,
        index: int,
        spec: LLMClientSpec,
        tasks: LLMTasks,
        policy: BatchingPolicy,
        done: Callable[[int, int], None],
        *,
        notify: bool,
    ) -> None:
        self.index = index
        self.tasks = tasks
        self.cost = spec.cost
        self.lookahead = spec.lookahead
        self.max_num_seqs = spec.max_num_seqs
        self.max_num_batched_tokens = spec.max_num_batched_tokens
        self.batch = RunningBatch(tasks, spec.kv_blocks, spec.block_size)
        self.waiting: deque[int] = deque()
        self.plan_ps = NEVER
        self.tail_ps = 0
        self.served = 0
        self.segments = array("q")
        self._policy = policy
        self._done = done
        self._notify = notify
        self._inbox: deque[tuple[int, int]] = deque()  # (visible to the scheduler at, task)
        self._outbox: deque[tuple[int, int]] = deque()  # (delivered at, task), if anyone waits for it
        self._in_flight: deque[tuple[int, list[int]]] = deque()  # ends that still hold seats and blocks
        self._run_steps = 0
        self._run_start_ps = 0

    # What the coordinator and the engine use.

    def submit(self, task: int, now_ns: int) -> None:
        """Queue a task that is ready now; the scheduler sees it after the engine's ingest time."""
        self._inbox.append(((now_ns + self.cost.ingest_ns) * PS_PER_NS, task))
        self.served += 1

    def next_ns(self) -> int:
        """Return the next instant that matters to others: a plan, an arrival or a delivery."""
        if not self._notify:
            return NEVER
        at = self.plan_ps
        if self._inbox and self._inbox[0][0] < at:
            at = self._inbox[0][0]
        if self._outbox and self._outbox[0][0] < at:
            at = self._outbox[0][0]
        return at // PS_PER_NS if at < NEVER else NEVER

    def fire(self, now_ns: int) -> None:
        """Do what is due within this nanosecond and hand over the tasks delivered in it."""
        until = (now_ns + 1) * PS_PER_NS
        self._advance(until)
        outbox = self._outbox
        while outbox and outbox[0][0] < until:
            self._done(outbox.popleft()[1], now_ns)

    def settle(self, now_ns: int) -> None:
        """Bring the scheduler's state up to, but not including, ``now_ns``."""
        self._advance(now_ns * PS_PER_NS if now_ns < NEVER else NEVER)

    def outstanding(self, now_ns: int) -> int:
        """Number of tasks submitted and not delivered before ``now_ns``."""
        now_ps = now_ns * PS_PER_NS
        self._advance(now_ps)
        delivered = sum(len(ends) for at, ends in self._in_flight if at < now_ps)
        return len(self._inbox) + len(self.waiting) + len(self.batch.running) - delivered

    def queued_tokens(self, now_ns: int) -> int:
        """Tokens known to be still processed: prompts not yet computed, and one per decoding sequence.

        True output lengths are not read.
        """
        self._advance(now_ns * PS_PER_NS)
        prompt = self.tasks.prompt
        arriving = sum(prompt[task] for _, task in self._inbox)
        return arriving + self.batch.backlog + self.batch.decodes

    # What batching policies use.

    def requeue(self, preempted: list[int]) -> None:
        """Put preempted tasks at the head of the queue, the one preempted last first."""
        finish_ps = self.tasks.finish_ps
        # A task whose last token was in flight is over; only its blocks were taken.
        self.waiting.extendleft(task for task in preempted if finish_ps[task] < 0)

    def commit_step(self, prefills: Prefills, decodes: int, completed: Completed) -> None:
        """Plan one step of prefill chunks and decodes; ``completed`` are the prefills that end in it.

        ``decodes`` is 0 or the number of all decoding sequences; blocks are already taken.
        """
        batch = self.batch
        start = self.tail_ps
        context = batch.context if decodes else 0
        end = start + self.cost.step_ps(prefills, decodes, context)
        ended = batch.decode(1, end) if decodes else []
        joined = 0
        for admission, task in completed:
            if batch.join(admission, task, end):
                joined += 1
            else:
                ended.append(admission)
        batch.note_peak(batch.free)
        if ended:
            self._end(ended, end)
        chunks = 0
        for chunk, _ in prefills:
            chunks += chunk
        self.segments.extend((start, end, 1, decodes, context, chunks, joined))
        self.tail_ps = end
        self.plan_ps = start if self.lookahead else end

    def commit_decodes(self, limit: int) -> None:
        """Plan a run of pure decode steps: to the first end, to the last free block, at most ``limit`` steps."""
        batch = self.batch
        steps = batch.steps_to_end()
        if steps > limit:
            steps = limit
        if steps > 1:
            steps = batch.steps_with_blocks(steps)
        self._run_start_ps = self.tail_ps
        self._set_run(steps)

    @property
    def deliveries_pending(self) -> bool:
        """Whether ended sequences still hold seats and blocks until the step in flight is over."""
        return bool(self._in_flight)

    # The scheduler's own loop.

    def _advance(self, until_ps: int) -> None:
        """Handle all arrivals and plans before ``until_ps``; an arrival goes before a plan of the same instant."""
        inbox = self._inbox
        while True:
            if inbox and inbox[0][0] <= self.plan_ps:
                if inbox[0][0] >= until_ps:
                    return
                at, task = inbox.popleft()
                self._arrive(task, at)
            elif self.plan_ps < until_ps:
                self._plan()
            else:
                return

    def _arrive(self, task: int, at: int) -> None:
        waiting = self.waiting
        waiting.append(task)
        self.batch.backlog += self.tasks.prompt[task]
        if self.plan_ps >= NEVER:
            self.plan_ps = self.tail_ps = at
        elif self._run_steps > 1 and len(waiting) == 1:
            self._cut_run(at)

    def _plan(self) -> None:
        batch = self.batch
        if self._run_steps:
            self._close_run()
        in_flight = self._in_flight
        while in_flight and in_flight[0][0] <= self.plan_ps:
            batch.release(in_flight.popleft()[1])
        if not self._policy.plan(self):
            self.plan_ps = self.tail_ps if self.tail_ps > self.plan_ps else NEVER

    def _end(self, ended: list[int], end_ps: int) -> None:
        self._in_flight.append((end_ps, ended))
        if self._notify:
            running = self.batch.running
            for admission in ended:
                self._outbox.append((end_ps, running[admission]))

    def _run_end(self, steps: int) -> int:
        """Return when the first ``steps`` steps of the current run are over."""
        decodes = self.batch.decodes
        tokens = self.batch.context * steps + decodes * (steps * (steps - 1) // 2)
        return self._run_start_ps + self.cost.decode_ps[decodes] * steps + self.cost.context_ps * tokens

    def _set_run(self, steps: int) -> None:
        self._run_steps = steps
        self.tail_ps = self._run_end(steps)
        self.plan_ps = self._run_end(steps - 1) if self.lookahead else self.tail_ps

    def _cut_run(self, at: int) -> None:
        """End the run after the last step that was planned before ``at``."""
        start = self._run_start_ps
        decodes = self.batch.decodes
        half = 0.5 * self.cost.context_ps * decodes
        linear = self.cost.decode_ps[decodes] + self.cost.context_ps * self.batch.context - half
        gone = at - start
        steps = 0
        if gone > 0:
            steps = int(2.0 * gone / (linear + sqrt(linear * linear + 4.0 * half * gone)))
            while steps > 0 and self._run_end(steps) >= at:
                steps -= 1
            while self._run_end(steps) < at:
                steps += 1
        if self.lookahead:
            steps += 1
        if steps < self._run_steps:
            self._set_run(max(steps, 1))

    def _close_run(self) -> None:
        batch = self.batch
        steps = self._run_steps
        self._run_steps = 0
        end = self.tail_ps
        self.segments.extend((self._run_start_ps, end, steps, batch.decodes, batch.context, 0, 0))
        in_flight = self._in_flight
        if in_flight and steps > 1:
            batch.note_peak(batch.free - batch.needed_blocks())
            while in_flight:  # all were delivered when the run's first step began
                batch.release(in_flight.popleft()[1])
        batch.take_blocks(steps)
        batch.note_peak(batch.free)
        ended = batch.decode(steps, end)
        if ended:
            self._end(ended, end)
