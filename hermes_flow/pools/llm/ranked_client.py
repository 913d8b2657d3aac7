"""An LLM client with data-parallel attention: several schedulers whose steps begin and end together.

Its loop is in ``ranked_loop.py``. The ranks share the experts of a mixture, so that every forward pass needs all of
them. As in vLLM, each rank has its own seats, token budget, KV blocks, prefix cache and queue, and plans its own
step; a step lasts as long as that of the slowest rank. A rank without work takes part with a dummy batch, which costs
nothing here beside the others. A front end (``rank_choice``) gives each request to a rank as it comes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from hermes_flow.pools.llm.batch import RunningBatch
from hermes_flow.pools.llm.load import LLMLoad
from hermes_flow.pools.llm.rank import Rank
from hermes_flow.pools.llm.ranked_loop import RankedLoop
from hermes_flow.pools.llm.scheduler import BatchingPolicy
from hermes_flow.pools.llm.step_log import segment_rows, single_steps
from hermes_flow.pools.llm.tasks import LLMTasks
from hermes_flow.pools.outbox import due
from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.units import NEVER, PS_PER_NS


class RankedClient(RankedLoop):
    """An LLM client of several ranks, with the figures that others may ask for."""

    __slots__ = ("_nominal", "_polls_kv")

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
        super().__init__(index, spec, tasks, policies, done, begun, notify=notify)
        self._nominal = spec.cost
        self._polls_kv = spec.polls_kv

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
        self._cost = cost
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

    def bring(self, task: int, now_ns: int) -> int:
        """Note that the KV of a task that had asked for blocks is here; see ``PoolClient``."""
        self._advance(now_ns * PS_PER_NS)
        # The plan that granted the blocks may lie within this nanosecond: it does not see the KV.
        at_ps = max(now_ns * PS_PER_NS, self._rank_of[task].batch.now_ps + 1)
        self._inbox.bring(task, self._noticed_ps(at_ps) if self._polls_kv else at_ps)
        return self.next_ns()

    def _noticed_ps(self, at_ps: int) -> int:
        """Return when KV that arrives at ``at_ps`` is in the queue; see ``LLMClient``."""
        if self.plan_ps >= NEVER and self.tail_ps <= at_ps:
            return at_ps
        run = self._run
        if run is None:
            return self.tail_ps + 1
        steps = run.planned_before(at_ps) if at_ps > run.start_ps else 1
        return (run.end_ps(steps) if steps < run.steps else self.tail_ps) + 1

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
