"""One rank of data-parallel attention: a scheduler of its own, whose steps begin and end with those of the others."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from hermes_flow.pools.llm.batch import RunningBatch
from hermes_flow.pools.llm.queue_and_batch import running_batch, waiting_queue
from hermes_flow.pools.llm.scheduler import BatchingPolicy, Completed, Prefills
from hermes_flow.pools.llm.speculative_decoding import Speculation
from hermes_flow.pools.llm.step_log import log_entering, pack_segment
from hermes_flow.program.pools import LLMClientSpec

if TYPE_CHECKING:
    from hermes_flow.pools.llm.ranked_loop import RankedLoop
    from hermes_flow.pools.llm.watched_tokens import WatchedTokens


class Rank:
    """A rank with seats, a token budget, KV blocks, a prefix cache and a queue of its own.

    Its batching policy plans a step, which is kept here until all ranks have planned: the client then knows how long
    the step takes, and calls ``commit`` or ``end_run``. ``spec`` has the blocks of one rank.
    """

    __slots__ = (
        "_client",
        "_completed",
        "_prefills",
        "_speculation",
        "batch",
        "chunks",
        "context",
        "cost",
        "decodes",
        "in_flight",
        "joined",
        "limit",
        "log",
        "max_num_batched_tokens",
        "max_num_seqs",
        "more",
        "policy",
        "requeued",
        "single",
        "tail_ps",
        "tasks",
        "tokens_per_decode",
        "waiting",
        "watched",
    )

    def __init__(self, client: RankedLoop, spec: LLMClientSpec, policy: BatchingPolicy) -> None:
        self._client = client
        self.cost = spec.cost.of_rank
        self._speculation = None if spec.speculation is None else Speculation(spec.speculation)
        self.policy = policy
        self.tasks = client.tasks
        self.batch: RunningBatch = running_batch(spec, client.tasks)
        self.waiting = waiting_queue(spec, client.tasks)
        self.max_num_seqs = spec.max_num_seqs
        self.max_num_batched_tokens = spec.max_num_batched_tokens
        self.tokens_per_decode = spec.cost.tokens_per_decode
        self.tail_ps = 0
        self.in_flight: deque[tuple[int, list[int]]] = deque()  # ends that still hold seats and blocks
        self.log = bytearray()
        self.watched: WatchedTokens | None = None  # of tokens that somebody waits for
        self.requeued = False  # the plan that is made has preempted a sequence
        # The step that is planned.
        self.single = False  # it is one step, not a run of decodes
        self.limit = 0  # steps of a run
        self.decodes = 0
        self.context = 0
        self.chunks = 0  # tokens of prompts
        self.joined = 0  # sequences whose prompt it completes, and that go on
        self.more: list[tuple[int, int]] = []  # further tokens by speculation: sequences, and their context
        self._prefills: Prefills = []
        self._completed: Completed = []

    # What batching policies use, besides the attributes.

    @property
    def deliveries_pending(self) -> bool:
        """Whether ended sequences hold seats and blocks until the running step ends."""
        return bool(self.in_flight)

    def requeue(self, preempted: list[int]) -> None:
        """Put preempted tasks at the head of the queue, the one preempted last first."""
        finish_ps = self.tasks.finish_ps
        self.requeued = True
        # A task whose last token was in flight is over; only its blocks were taken.
        self.waiting.extendleft(task for task in preempted if finish_ps[task] < 0)

    def enter(self, task: int) -> None:
        """Admit a waiting task whose KV is computed already; it decodes with the others."""
        batch = self.batch
        if task in self.tasks.asking:
            self._client.grant(batch, task)
            return
        batch.enter(task, self.tail_ps)
        if self.watched is not None:
            self.watched.enter(task)
        emitted_ps, left_ps = batch.last_token_ps(task), list(batch.abandoned_ps)
        log_entering(self.log, emitted_ps, batch.abandoned_ps)
        self._client.log_entering(emitted_ps, left_ps)

    def commit_step(self, prefills: Prefills, decodes: int, completed: Completed) -> None:
        """Plan one step of prefill chunks and decodes."""
        self.single = True
        self.decodes = decodes
        self._prefills, self._completed = prefills, completed

    def commit_decodes(self, limit: int) -> None:
        """Plan at most ``limit`` steps of pure decodes."""
        self.single = limit == 1
        self.limit = limit
        self.decodes = self.batch.decodes
        self._prefills, self._completed = [], []

    # What the client uses.

    def plan(self, tail_ps: int) -> bool:
        """Let the policy plan what begins at ``tail_ps``; return False if there is nothing to do."""
        self.tail_ps = tail_ps
        self.requeued = False
        if not self.policy.plan(self):
            self.decodes = self.chunks = self.context = 0
            return False
        self.chunks = sum([chunk for chunk, _ in self._prefills])
        self.context = self.batch.context if self.decodes else 0
        return True

    @property
    def held_back(self) -> bool:
        """Whether a rank that has planned nothing may have something to do in the next step of the others."""
        return self.requeued or (bool(self.waiting) and bool(self.in_flight))

    def release(self, now_ps: int) -> None:
        """Free seats and blocks of what was delivered by now, the instant of a plan."""
        batch, in_flight = self.batch, self.in_flight
        while in_flight and in_flight[0][0] <= now_ps:
            batch.release(in_flight.popleft()[1])
        batch.now_ps = now_ps

    @property
    def tokens(self) -> int:
        """The tokens of the planned step."""
        return self.decodes * self.tokens_per_decode + self.chunks

    @property
    def first_ps(self) -> int:
        """The time of the planned decodes by themselves, in the first step of a run."""
        return self.cost.decode_ps[self.decodes] + self.cost.context_ps * self.context

    @property
    def growth_ps(self) -> int:
        """The time by which each further step of a run takes longer."""
        return self.cost.context_ps * self.decodes

    @property
    def completes(self) -> int:
        """The number of prompts that the planned step completes."""
        return len(self._completed)

    def step_ps(self) -> int:
        """Return the time that the planned step would take if it were the slowest rank's, without shared experts."""
        batch = self.batch
        duration = self.cost.step_ps(self._prefills, self.decodes, self.context) + batch.copy_ps
        batch.copy_ps = 0
        if batch.export_ps:
            duration += batch.exporting_ps(self._completed)
        self._client.twice_pairs += sum([chunk * (2 * past + chunk) for chunk, past in self._prefills])
        return duration

    def most_steps(self) -> int:
        """Return how many steps a run of the planned decodes may have."""
        batch = self.batch
        steps = min(self.limit, batch.steps_to_end())
        if self.watched is not None:
            steps = min(steps, self.watched.steps())
        if steps > 1 and batch.free < self.decodes * (steps // batch.block_size + 1):
            steps = batch.steps_with_blocks(steps)
        return steps

    def commit(self, start_ps: int, end_ps: int) -> list[int]:
        """Let the planned step last from ``start_ps`` to ``end_ps``; return the admissions that end with it."""
        batch, decodes, completed = self.batch, self.decodes, self._completed
        ended = batch.decode(1, end_ps) if decodes else []
        more: list[tuple[int, int]] = []
        if decodes and self._speculation is not None:
            more = self._speculation.gain_more(batch, end_ps, ended)
        joined = batch.join_all(completed, end_ps, ended)
        if not decodes:
            batch.note_peak()
        if self.watched is not None:
            self.watched.note(completed, end_ps)
        if batch.begun:
            self._client.outbox.note_begun(batch.begun, start_ps, end_ps)
        self.log += pack_segment(
            start_ps, end_ps, 1, decodes, self.context, self.chunks, 0 if more else joined
        )
        for place, (gaining, before) in enumerate(more, start=1):
            last = joined if place == len(more) else 0
            self.log += pack_segment(end_ps, end_ps, 0, gaining, before, 0, last)
        self.joined, self.more = joined, more
        return ended

    def begun_steps(self, steps: int) -> None:
        """Take the blocks of the first ``steps`` steps of the run in progress."""
        if steps > 1 and self.in_flight:
            self._deliver_before_run()
        self.batch.take_iterations(steps)

    def idle_steps(self, steps: int) -> None:
        """Release what was in flight as a run of the other ranks began, once its second step has begun."""
        while steps > 1 and self.in_flight:
            self.batch.release(self.in_flight.popleft()[1])

    def end_run(self, start_ps: int, end_ps: int, steps: int) -> list[int]:
        """Let a run of planned decodes have happened; return the admissions that end with it."""
        batch = self.batch
        self.log += pack_segment(start_ps, end_ps, steps, self.decodes, self.context, 0, 0)
        if steps > 1 and self.in_flight:
            self._deliver_before_run()
        ended = batch.decode(steps, end_ps)
        if self.watched is not None:
            self.watched.note((), end_ps)
        return ended

    def _deliver_before_run(self) -> None:
        """Release what was in flight when the run began: all of it was delivered when its first step began."""
        batch, in_flight = self.batch, self.in_flight
        batch.take_iteration()
        batch.note_peak()
        while in_flight:
            batch.release(in_flight.popleft()[1])

    def admitted(self, now_ps: int) -> int:
        """Return how many tasks are admitted and not delivered before ``now_ps``."""
        running = self.batch.running
        count = len(running)
        for at, ends in self.in_flight:
            count -= sum(admission in running for admission in ends)
            if at >= now_ps:
                count += len(ends)
        return count

    def counts(self, at_ps: int) -> tuple[int, int]:
        """Return how many sequences wait and how many run, by all that happened before ``at_ps``."""
        running = self.batch.running
        lost = 0  # preempted while their last token is in flight: they wait until it is there
        for end_ps, ends in self.in_flight:
            if end_ps >= at_ps:
                lost += sum(admission not in running for admission in ends)
        return len(self.waiting) + lost, self.admitted(at_ps) - lost
