"""Mixed batching: whole prompts and decodes share a step, and no prompt is cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hermes_flow.pools.llm.batching.admission import admit_waiting
from hermes_flow.pools.llm.batching.policy import batching_policies
from hermes_flow.pools.llm.scheduler import UNLIMITED, Completed, Prefills, Scheduler


@batching_policies.register("mixed")
@dataclass(frozen=True, slots=True)
class Mixed:
    """Every running sequence takes a token; waiting prompts join whole, in order, as far as the budget lasts.

    A prompt longer than ``max_num_batched_tokens`` is the only prompt of its step, which then exceeds the
    budget. A running sequence without a free block preempts the one admitted last, and nobody is admitted in
    that step.
    """

    gang: ClassVar[bool] = False
    whole_prompts: ClassVar[bool] = True

    def plan(self, client: Scheduler) -> bool:
        """Plan one step, or a decode run where no prompt can join."""
        batch = client.batch
        if not client.waiting:
            if not batch.decodes:
                return False
            if batch.free >= batch.decodes or batch.free >= batch.needed_blocks():
                client.commit_decodes(UNLIMITED)
                return True
        preempted: list[int] = []
        batch.take_or_preempt(preempted)
        prefills: Prefills = []
        completed: Completed = []
        left_computed = 0  # of the prompt at the head of the queue
        if preempted:
            client.requeue(preempted)
        elif client.waiting:
            budget = client.max_num_batched_tokens - batch.decodes * client.tokens_per_decode
            left_computed = admit_waiting(client, budget, prefills, completed)
        if prefills or batch.copy_ps or (preempted and batch.decodes):
            client.commit_step(prefills, batch.decodes, completed)
        elif batch.decodes:
            # What is evicted meanwhile can change how much of the head of the queue must be computed.
            fixed = not client.deliveries_pending and not left_computed
            client.commit_decodes(UNLIMITED if fixed else 1)
        else:
            return False
        return True
