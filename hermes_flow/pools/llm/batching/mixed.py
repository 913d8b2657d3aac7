"""Mixed batching: whole prompts and decodes share a step, nothing is cut."""

from __future__ import annotations

from hermes_flow.pools.llm.batching.policy import batching_policies
from hermes_flow.pools.llm.scheduler import UNLIMITED, Completed, Prefills, Scheduler


@batching_policies.register("mixed")
class Mixed:
    """Every running sequence takes a token; waiting prompts join whole, in order, as far as the budget lasts.

    A prompt longer than ``max_num_batched_tokens`` is the only prompt of its step, which then exceeds the
    budget. A running sequence without a free block preempts the one admitted last, and nobody is admitted in
    that step.
    """

    __slots__ = ()
    whole_prompts = True

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
        if preempted:
            client.requeue(preempted)
        elif client.waiting:
            _admit(client, prefills, completed)
        if prefills or batch.copy_ps or (preempted and batch.decodes):
            client.commit_step(prefills, batch.decodes, completed)
        elif batch.decodes:
            # What is evicted meanwhile can change how much of the head of the queue must be computed.
            fixed = not client.deliveries_pending and not batch.hit_tokens
            client.commit_decodes(UNLIMITED if fixed else 1)
        else:
            return False
        return True


def _admit(client: Scheduler, prefills: Prefills, completed: Completed) -> None:
    """Admit whole waiting prompts in order while budget, seats and blocks last."""
    batch = client.batch
    tasks = client.tasks
    waiting = client.waiting
    budget = client.max_num_batched_tokens - batch.decodes * client.tokens_per_decode
    seats = client.max_num_seqs - len(batch.running)
    while waiting and seats > 0:
        task = waiting[0]
        if batch.blocks_to_admit(task) > batch.free:
            return
        seats -= 1
        if batch.is_computed(task):
            if budget < client.tokens_per_decode:
                return
            client.enter(waiting.popleft())
            budget -= client.tokens_per_decode
            continue
        computed = batch.hit_tokens
        left = tasks.prompt[task] + tasks.generated[task] - computed
        alone = left > client.max_num_batched_tokens and not prefills
        if left > budget and not alone:
            return
        waiting.popleft()
        completed.append((batch.admit(task, left, client.tail_ps), task))
        prefills.append((left, computed))
        budget -= left
