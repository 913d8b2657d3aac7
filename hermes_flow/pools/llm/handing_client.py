"""A client that decides its steps one by one, and hands the KV of prompts to other clients or takes it over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from hermes_flow.pools.client import Calls, Granted
from hermes_flow.pools.llm.decided_steps import DecidedSequence, Step, StepScheduler
from hermes_flow.pools.llm.deciding_client import DecidingClient
from hermes_flow.pools.llm.tasks import LLMTasks
from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.units import NEVER, PS_PER_NS


class SendingScheduler(StepScheduler, Protocol):
    """What a client asks of a scheduler whose prompts are awaited elsewhere."""

    def hand_over(self, sequence: Any) -> None:
        """Note that a prompt is complete and its token delivered; its KV stays until ``ended``."""


class ReceivingScheduler(StepScheduler, Protocol):
    """What a client asks of a scheduler whose requests come with the KV of their prompts.

    ``enqueue`` takes in a request that asks for memory. ``granted`` are those that got it in the last decision, and
    ``joined`` those that got their first token there.
    """

    granted: list[Any]
    joined: list[Any]

    def arrived(self, sequence: Any) -> None:
        """Take note that the KV of a request is here."""


class SendingClient(DecidingClient):
    """One client that prefills. The KV of a prompt that another client awaits stays until it is let go."""

    __slots__ = ("_handing_over", "_sends")

    def __init__(
        self,
        index: int,
        spec: LLMClientSpec,
        tasks: LLMTasks,
        calls: Calls,
        scheduler: SendingScheduler,
        sequence_of: Callable[[int], DecidedSequence],
    ) -> None:
        super().__init__(index, spec, tasks, calls, scheduler, sequence_of)
        self._sends = scheduler
        self._handing_over: dict[int, DecidedSequence] = {}  # by task

    def hold(self, task: int, now_ns: int) -> None:
        """Take note of a task that waits until another client has memory for its KV; ``submit`` follows."""
        self._inbox.hold(task, now_ns)
        if self._load is not None:
            self._load.in_hand.add(task)

    def let_go(self, task: int, now_ns: int) -> int:
        """Free the KV of a prompt that no client awaits any more; see ``PoolClient``."""
        now_ps = now_ns * PS_PER_NS
        self._advance(now_ps)
        self.tasks.leaving[task] = 0
        sequence = self._handing_over.pop(task, None)
        if sequence is not None:
            self._scheduler.ended(sequence)
            if self.plan_ps >= NEVER and not self._scheduler.idle:
                self.plan_ps = max(now_ps, self.tail_ps, self._decided_ps)
        return self.next_ns()

    def _take_in(self, task: int, at_ps: int) -> None:
        self.tasks.since_ps.pop(task, None)
        super()._take_in(task, at_ps)

    def _free(self, sequence: DecidedSequence) -> None:
        leaving = self.tasks.leaving
        if leaving and leaving[sequence.task]:
            self._handing_over[sequence.task] = sequence
            self._sends.hand_over(sequence)
        else:
            self._scheduler.ended(sequence)


class ReceivingClient(DecidingClient):
    """One client that decodes. Requests ask for memory, and go on from the KV that is sent then."""

    __slots__ = ("_asks", "_grant", "_grants", "_joined", "_receives")

    def __init__(
        self,
        index: int,
        spec: LLMClientSpec,
        tasks: LLMTasks,
        calls: Calls,
        scheduler: ReceivingScheduler,
        sequence_of: Callable[[int], DecidedSequence],
    ) -> None:
        super().__init__(index, spec, tasks, calls, scheduler, sequence_of)
        self._receives = scheduler
        self._grant: Granted = calls.granted
        self._grants: list[int] = []  # tasks that have memory and are not told so
        self._asks: set[int] = set()  # tasks that have none yet
        self._joined: list[int] = []  # tasks that have run in no step yet

    def ask(self, task: int, now_ns: int) -> int:
        """Queue a task whose KV another client has or computes; see ``PoolClient``."""
        self._advance(now_ns * PS_PER_NS)
        self._asks.add(task)
        self._inbox.ask(task, now_ns)
        if self._load is not None:
            self._load.in_hand.add(task)
        return self.next_ns()

    def bring(self, task: int, now_ns: int) -> int:
        """Note that the KV of a task that had asked for memory is here; see ``PoolClient``."""
        now_ps = now_ns * PS_PER_NS
        self._advance(now_ps)
        self._stretch = -1
        self._receives.arrived(self._sequences[task])
        self._plan_soon(now_ps)
        return self.next_ns()

    def withdraw(self, task: int, now_ns: int) -> int:
        """Take back a task that nobody waits for; see ``PoolClient``."""
        self._asks.discard(task)
        return super().withdraw(task, now_ns)

    def next_ns(self) -> int:
        """Return the instant of the next decision with visible results, or of the next arrival."""
        if not self._notify and self._asks:
            at, arriving = self.plan_ps, self._inbox.queue
            if arriving and arriving[0][0] < at:
                at = arriving[0][0]
            return at // PS_PER_NS if at < NEVER else NEVER
        return super().next_ns()

    def fire(self, now_ns: int) -> int:
        """Process the arrivals and decisions due within this nanosecond, and tell who has memory."""
        at = super().fire(now_ns)
        if not self._grants:
            return at
        grants, self._grants = self._grants, []
        for task in grants:
            self._asks.discard(task)
            self._grant(task, 0, None, now_ns)
        return self.next_ns()

    def _see_withdrawal(self, task: int, at_ps: int) -> None:
        super()._see_withdrawal(task, at_ps)
        self.tasks.forget_kv(task)
        self._plan_soon(at_ps)

    def _plan_soon(self, now_ps: int) -> None:
        """Decide as soon as possible, where nothing is to be decided anyway."""
        if self.plan_ps >= NEVER:
            self.plan_ps = max(now_ps, self.tail_ps, self._decided_ps)

    def _after_decision(self, now_ps: int) -> None:
        tasks = self.tasks
        for sequence in self._receives.granted:
            tasks.asking.discard(sequence.task)
            tasks.kept.pop(sequence.task, None)
            self._grants.append(sequence.task)
        for sequence in self._receives.joined:
            tasks.first_ps[sequence.task] = sequence.delivered_ps = now_ps
            self._joined.append(sequence.task)

    def _begin(self, step: Step, start_ps: int) -> None:
        for task in self._joined:
            self.tasks.start_ps[task] = start_ps
        self._joined.clear()
        super()._begin(step, start_ps)
