"""Continuous batching with prefill first (Orca, vLLM V0): whole prompts as soon as they fit, else decodes."""

from __future__ import annotations

from hermes_flow.pools.llm.batching.policy import batching_policies
from hermes_flow.pools.llm.scheduler import UNLIMITED, Completed, Prefills, Scheduler


@batching_policies.register("continuous")
class Continuous:
    """If waiting prompts fit, the step is whole prompts only; else every running sequence decodes.

    Prompts are admitted in order while seats, the blocks of the whole present sequence and the token budget
    last; a prompt longer than the whole budget makes a step of its own. A decoding sequence without a free
    block preempts the one admitted last. (``whole_prompts``: a step may exceed the token budget.)
    """

    __slots__ = ()
    whole_prompts = True

    def plan(self, client: Scheduler) -> bool:
        """Plan a step of prompts, or a decode run where none can join."""
        batch = client.batch
        if client.waiting:
            prefills, completed = _admit(client)
            if prefills:
                client.commit_step(prefills, 0, completed)
                return True
        if not batch.decodes:
            return False
        if batch.copy_ps and batch.needed_blocks() <= batch.free:
            batch.take_iteration()
            client.commit_step([], batch.decodes, [])
            return True
        if batch.needed_blocks() <= batch.free:
            blocked_until_delivery = client.waiting and client.deliveries_pending
            client.commit_decodes(1 if blocked_until_delivery else UNLIMITED)
            return True
        preempted: list[int] = []
        batch.take_or_preempt(preempted)
        client.requeue(preempted)
        if not batch.decodes and not batch.copy_ps:
            return False
        client.commit_step([], batch.decodes, [])
        return True


def _admit(client: Scheduler) -> tuple[Prefills, Completed]:
    """Admit whole waiting prompts in order while budget, seats and blocks last."""
    batch = client.batch
    tasks = client.tasks
    waiting = client.waiting
    prefills: Prefills = []
    completed: Completed = []
    budget = client.max_num_batched_tokens
    seats = client.max_num_seqs - len(batch.running)
    while waiting and seats > 0:
        task = waiting[0]
        if batch.blocks_to_admit(task) > batch.free:
            break
        if batch.is_computed(task):
            client.enter(waiting.popleft())
            seats -= 1
            continue
        computed = batch.hit_tokens
        left = tasks.prompt[task] + tasks.generated[task] - computed
        if left > budget and not (left > client.max_num_batched_tokens and not prefills):
            break
        waiting.popleft()
        completed.append((batch.admit(task, left, client.tail_ps), task))
        prefills.append((left, computed))
        budget -= left
        seats -= 1
    return prefills, completed
