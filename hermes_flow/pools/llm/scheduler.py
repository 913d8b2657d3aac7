"""What a batching policy works on: the scheduler's state, and how it commits what it has planned."""

from __future__ import annotations

from typing import Protocol, TypeAlias

from hermes_flow.pools.llm.batch import RunningBatch
from hermes_flow.pools.llm.tasks import LLMTasks
from hermes_flow.pools.llm.waiting import WaitingQueue

UNLIMITED = 1 << 40

Prefills: TypeAlias = list[tuple[int, int]]  # (chunk, tokens computed before)
Completed: TypeAlias = list[tuple[int, int]]  # (admission, task)


class Scheduler(Protocol):
    """The scheduler of an LLM client, or of one of its micro-batches, at a planning instant.

    ``tail_ps`` is when what is planned now begins; ``tokens_per_decode`` what a decoding sequence takes of
    ``max_num_batched_tokens``.
    """

    batch: RunningBatch
    waiting: WaitingQueue
    tasks: LLMTasks
    max_num_seqs: int
    max_num_batched_tokens: int
    tokens_per_decode: int
    tail_ps: int

    @property
    def deliveries_pending(self) -> bool:
        """Whether ended sequences still hold seats and blocks until the step in flight is over."""

    def requeue(self, preempted: list[int]) -> None:
        """Put preempted tasks at the head of the queue, the one preempted last first."""

    def enter(self, task: int) -> None:
        """Admit a waiting task whose KV is computed already; it decodes with the others."""

    def commit_step(self, prefills: Prefills, decodes: int, completed: Completed) -> None:
        """Plan one step of prefill chunks and decodes; ``completed`` are the prefills that end in it.

        ``decodes`` is 0 or the number of all decoding sequences; blocks are already taken.
        """

    def commit_decodes(self, limit: int) -> None:
        """Plan a run of pure decode steps, at most ``limit`` of them; blocks for the first one are free."""


class GangScheduler(Scheduler, Protocol):
    """A scheduler that can also commit gangs: one with a single batch at a time."""

    def commit_gang(self, members: Completed, longest: int) -> None:
        """Plan a gang from prefill to end: prompts padded to ``longest``, decoded until the last one ends."""


class BatchingPolicy(Protocol):
    """Which sequences go into the next step: plans one step, or one decode run, on the scheduler's state."""

    def plan(self, client: Scheduler) -> bool:
        """Plan what follows ``client.tail_ps``; return False where there is nothing to do."""
