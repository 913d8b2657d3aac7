"""Plans the steps of chunked prefill, for the policy ``chunked``.

Most simulations plan all of their steps here. The policy itself cannot be compiled, since it is asked for what its
class says of itself; this function can.
"""

from __future__ import annotations

from hermes_flow.pools.llm.batch import RunningBatch
from hermes_flow.pools.llm.batching.admission import admit_waiting
from hermes_flow.pools.llm.scheduler import UNLIMITED, Completed, Prefills, Scheduler


def plan_chunks(client: Scheduler) -> bool:
    """Plan one step, or a decode run where no prompt can join."""
    # Calls of a known class are much faster in the compiled core than those of a protocol.
    batch: RunningBatch = client.batch  # type: ignore[assignment]
    if not client.waiting and not batch.prefilling:
        if not batch.decodes:
            return False
        if batch.free >= batch.decodes or batch.free >= batch.needed_blocks():
            client.commit_decodes(UNLIMITED)
            return True
    preempted: list[int] = []
    batch.take_or_preempt(preempted)
    prefills: Prefills = []
    completed: Completed = []
    budget = client.max_num_batched_tokens - batch.decodes * client.tokens_per_decode
    if batch.prefilling:
        budget -= _continue_prefill(client, budget, prefills, completed, preempted)
    if preempted:
        client.requeue(preempted)
    elif client.waiting:
        admit_waiting(client, budget, prefills, completed, cut_last=True)
    if prefills or batch.copy_ps or (preempted and batch.decodes):
        client.commit_step(prefills, batch.decodes, completed)
    elif batch.decodes:
        client.commit_decodes(1 if client.deliveries_pending else UNLIMITED)
    else:
        return False
    return True


def _continue_prefill(
    client: Scheduler, budget: int, prefills: Prefills, completed: Completed, preempted: list[int]
) -> int:
    """Schedule the next chunk of the prompt that was cut; return its tokens."""
    batch: RunningBatch = client.batch  # type: ignore[assignment]
    admission, computed = next(iter(batch.prefilling.items()))
    task = batch.running[admission]
    total = client.tasks.prompt[task] + client.tasks.generated[task]
    chunk = min(total - computed, budget)
    blocks = batch.blocks_to_continue(computed, chunk)
    while blocks > batch.free and batch.reclaim(-1):
        pass
    if blocks > batch.free:
        batch.preempt_last(preempted)
        return 0
    batch.take_chunk(admission, computed, chunk)
    prefills.append((chunk, computed))
    if computed + chunk == total:
        del batch.prefilling[admission]
        completed.append((admission, task))
    else:
        batch.prefilling[admission] = computed + chunk
    return chunk
