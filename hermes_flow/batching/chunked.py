"""Chunked prefill, as vLLM V1 schedules: one token budget, running sequences first, then waiting prompts."""

from __future__ import annotations

from hermes_flow.batching.policy import batching_policies
from hermes_flow.clients.llm import UNLIMITED, Completed, LLMClient, Prefills


@batching_policies.register("chunked")
class Chunked:
    """Every running sequence takes a token, or the next chunk of its prompt; waiting prompts take the rest.

    The last prompt is cut to what is left of ``max_num_batched_tokens``. A waiting prompt is admitted when a
    seat and the blocks of its whole present sequence are free; it takes only those of its first chunk. A
    running sequence without a free block preempts the one admitted last, and nobody is admitted in that step.
    """

    __slots__ = ()

    def plan(self, client: LLMClient) -> bool:
        """Plan one step, or a decode run where no prompt can join."""
        batch = client.batch
        if not client.waiting and not batch.prefilling:
            if not batch.decodes:
                return False
            if batch.free >= batch.decodes or batch.free >= batch.needed_blocks():
                client.commit_decodes(UNLIMITED)
                return True
        preempted: list[int] = []
        needed = batch.needed_blocks()
        if needed > batch.free:
            batch.make_room(preempted)
        else:
            batch.free -= needed
        prefills: Prefills = []
        completed: Completed = []
        budget = client.max_num_batched_tokens - batch.decodes
        if batch.prefilling:
            budget -= _continue_prefill(client, budget, prefills, completed, preempted)
        if preempted:
            client.requeue(preempted)
        elif client.waiting and budget > 0:
            _admit(client, budget, prefills, completed)
        if prefills or (preempted and batch.decodes):
            client.commit_step(prefills, batch.decodes, completed)
        elif batch.decodes:
            batch.free += needed  # the run takes the blocks of its first step with the others
            client.commit_decodes(1 if client.deliveries_pending else UNLIMITED)
        else:
            return False
        return True


def _continue_prefill(
    client: LLMClient, budget: int, prefills: Prefills, completed: Completed, preempted: list[int]
) -> int:
    """Schedule the next chunk of the prompt that was cut; return its tokens."""
    batch = client.batch
    size = batch.block_size
    admission, computed = next(iter(batch.prefilling.items()))
    task = batch.running[admission]
    total = client.tasks.prompt[task] + client.tasks.generated[task]
    chunk = min(total - computed, budget)
    blocks = -(-(computed + chunk) // size) - -(-computed // size)
    if blocks > batch.free:
        batch.preempt_last(preempted)
        return 0
    batch.free -= blocks
    batch.backlog -= chunk
    prefills.append((chunk, computed))
    if computed + chunk == total:
        del batch.prefilling[admission]
        completed.append((admission, task))
    else:
        batch.prefilling[admission] = computed + chunk
    return chunk


def _admit(client: LLMClient, budget: int, prefills: Prefills, completed: Completed) -> None:
    """Admit waiting prompts in order while budget, seats and blocks last."""
    batch = client.batch
    size = batch.block_size
    tasks = client.tasks
    waiting = client.waiting
    seats = client.max_num_seqs - len(batch.running)
    while waiting and budget > 0 and seats > 0:
        task = waiting[0]
        total = tasks.prompt[task] + tasks.generated[task]
        if -(-total // size) > batch.free:
            return
        waiting.popleft()
        chunk = total if total <= budget else budget
        admission = batch.admit(task, chunk, client.tail_ps)
        prefills.append((chunk, 0))
        if chunk == total:
            completed.append((admission, task))
        else:
            batch.prefilling[admission] = chunk
        budget -= chunk
        seats -= 1
