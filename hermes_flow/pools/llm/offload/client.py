"""An LLM client that loads what the tiers have of a prompt before it schedules the request.

A load begins when the turn of the request comes in a plan, or with prefetching as the request reaches the client, if
there are free blocks then. Other requests have their turn meanwhile. A request goes before all that wait when its
load is over; one that was prefetched takes its place in the order of arrival. A request that waits for the load of
another one returns to the head of the queue, behind that one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from hermes_flow.pools.client import PoolClient
from hermes_flow.pools.llm.blocks import Found
from hermes_flow.pools.llm.client import LLMClient
from hermes_flow.pools.llm.inbox import REMINDER
from hermes_flow.pools.llm.offload.batch import DecodeRun, OffloadingBatch
from hermes_flow.pools.llm.scheduler import BatchingPolicy
from hermes_flow.pools.llm.tasks import LLMTasks
from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.units import NEVER, PS_PER_NS


class PlanInTime:
    """A policy whose evictions are written as it plans, and that first lets go of blocks whose time is over.

    A run may have ended the turn of such blocks late.
    """

    gang: ClassVar[bool] = False
    whole_prompts: ClassVar[bool] = True  # if its policy's are

    def __init__(self, policy: BatchingPolicy, batch: OffloadingBatch) -> None:
        self._policy, self._batch = policy, batch

    def plan(self, client: Any) -> bool:
        """Plan as the policy does."""
        self._batch.at(client.plan_ps)
        self._batch.expire(client.plan_ps)
        return self._policy.plan(client)


class OffloadingClient(LLMClient):
    """An engine with tiers of memory below its prefix cache."""

    __slots__ = ("_prefetches", "_tiered")

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
        assert spec.offload is not None
        assert isinstance(self.batch, OffloadingBatch)
        self._prefetches = spec.offload.prefetch
        self._tiered = self.batch
        self._tiered.loads = self
        self._tiered.on_loaded = self._see_loaded
        self._tiered.on_given_up = self._see_given_up
        self._tiered.on_pinned = self._see_pinned
        if spec.offload.ttl_ps < NEVER or spec.offload.tiers:
            self._policy = PlanInTime(policy, self._tiered)

    def submit(self, task: int, now_ns: int) -> int:
        """Queue a task that is ready now, and begin to load what the tiers have of it."""
        at_ps = seen_ps = (now_ns + self.cost.ingest_ns) * PS_PER_NS
        if self._prefetches:
            at_ps = self._prefetch(task, now_ns * PS_PER_NS, seen_ps) or seen_ps
        if self._inbox.submit_for(task, at_ps):
            self._next_heeded = False
        return self.next_ns()

    def resume(self, task: int, last_ps: int, now_ns: int) -> int:
        """Queue a task that goes on from the tokens of another client; one that is loaded counts as it is here."""
        at_ns = super().resume(task, last_ps, now_ns)
        if self._tiered.is_loading(task):
            self._tiered.backlog -= self._tiered.resumed[task]
            self._tiered.resumed[task] = 0
        return at_ns

    def read_kept(self, task: int, now_ns: int) -> tuple[int, int] | None:
        """Return the bytes of a prompt's blocks in tiers that survive, and when they are read; see ``PoolClient``."""
        return self._tiered.read_kept(task, now_ns * PS_PER_NS)

    def take_kept(self, task: int, now_ns: int) -> None:
        """Put the blocks of a task that came from a lost client into the first tier."""
        self._tiered.take_kept(task, now_ns * PS_PER_NS)

    def inherit(self, before: PoolClient, now_ns: int) -> None:
        """Begin with the tiers of the client that was here before, as far as they survive it."""
        assert isinstance(before, OffloadingClient)
        self._tiered.inherit(before._tiered, now_ns * PS_PER_NS)

    def _prefetch(self, task: int, now_ps: int, seen_ps: int) -> int:
        """Begin to load blocks of a task that comes, if there is room; return when they are here, or 0."""
        batch = self._tiered
        self._advance(now_ps)
        if self.run_steps:
            self._take_begun(now_ps)
            batch.note_peak()
            batch.expire(now_ps)
        found = batch.find(task)
        parts = batch.beyond(task, found) if found[0] <= batch.free else []
        if not parts or batch.loaded_by(parts) is not None:
            return 0
        if self.run_steps > 1:
            self._cut_run(now_ps)
        self.tasks.since_ps[task] = seen_ps
        return batch.begin_load(task, found, parts, now_ps, seen_ps)

    def commit_decodes(self, limit: int) -> None:
        """Plan a run of decodes, and let what its iterations evict be written as each of them is planned."""
        batch, planned_ps = self._tiered, self._tiered.now_ps
        iteration = batch.iteration
        super().commit_decodes(limit)
        if self.run_steps:
            pace = (self._first_ps, self._growth_ps, self.lookahead)
            batch.begin_run(DecodeRun(iteration, planned_ps, self.run_start_ps, *pace))

    def _close_run(self) -> None:
        super()._close_run()
        self._tiered.begin_run(None)

    def _deliver_before_run(self) -> None:
        batch, in_flight = self._tiered, self._in_flight
        batch.take_iteration()
        batch.note_peak()
        batch.at(self.run_start_ps)  # as the second step is planned
        while in_flight:
            batch.release(in_flight.popleft()[1])

    def load_first(self, task: int, found: Found) -> bool:
        """Take the task at the head of the queue aside, if blocks of it are to be loaded; return whether they are.

        Where another request is getting some of them, it waits for that load, and is looked up again.
        """
        parts = self._tiered.beyond(task, found)
        if not parts:
            return False
        self.waiting.popleft()
        self._tiered.backlog -= self._tokens_left(task)  # they count again as it comes back
        other = self._tiered.loaded_by(parts)
        if other is None:
            over_ps = self._tiered.begin_load(task, found, parts, self._tiered.now_ps)
            self._inbox.put_aside(task, over_ps)
        else:
            self.tasks.reserved.add(task)
            self._inbox.put_aside_for(task, other)
        return True

    def _see_loaded(self, at_ps: int) -> None:
        """Let what was written before a load is over come before it, and the next plan see its blocks."""
        self._before_blocks_are_freed(at_ps)
        if self.run_steps > 1:
            self._cut_run(at_ps)

    def _see_pinned(self, until_ps: int) -> None:
        """Look again when the time of blocks that are held for a next turn is over."""
        self._inbox.remind(max(until_ps, self._tiered.now_ps + 1))

    def _see_withdrawal(self, task: int, at: int) -> None:
        if task != REMINDER:
            super()._see_withdrawal(task, at)
            return
        self._inbox.withdrawals -= 1
        self._before_blocks_are_freed(at)
        self._tiered.expire(at)
        self._blocks_were_freed(at)

    def _see_given_up(self, task: int) -> None:
        """Let a request wait behind those that have their blocks."""
        self.waiting.withdraw(task)
        self.waiting.extendleft([task])

    def _tokens_left(self, task: int) -> int:
        return self.tasks.prompt[task] + self.tasks.generated[task]
