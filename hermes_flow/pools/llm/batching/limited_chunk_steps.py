"""Plans the steps of chunked prefill with a limit on the tokens of one prompt in a step, for ``LimitedChunks``.

The policy itself cannot be compiled, since it is asked for what its class says of itself; these functions can.
"""

from __future__ import annotations

from hermes_flow.errors import InternalError
from hermes_flow.pools.llm.batch import RunningBatch
from hermes_flow.pools.llm.batching.admission import admit_waiting
from hermes_flow.pools.llm.scheduler import UNLIMITED, Completed, Prefills, Scheduler


def plan_limited_chunks(client: Scheduler, longest: int) -> bool:
    """Plan one step, or a decode run where no prompt can join; a prompt gets at most ``longest`` tokens in a step."""
    # As in chunk_steps.py, a known class is much faster in the compiled core.
    batch: RunningBatch = client.batch  # type: ignore[assignment]
    if not client.waiting and not batch.prefilling:
        if not batch.decodes:
            return False
        if batch.free >= batch.decodes or batch.free >= batch.needed_blocks():
            client.commit_decodes(UNLIMITED)
            return True
    preempted: list[int] = []
    prefills: Prefills = []
    completed: Completed = []
    if batch.prefilling:
        budget = _go_through(client, longest, prefills, completed, preempted)
    else:
        batch.take_or_preempt(preempted)
        budget = client.max_num_batched_tokens - batch.decodes
    if preempted:
        client.requeue(preempted)
    elif client.waiting:
        admit_waiting(client, budget, prefills, completed, cut_last=True, longest_chunk=longest)
    if prefills or batch.copy_ps or (preempted and batch.decodes):
        client.commit_step(prefills, batch.decodes, completed)
    elif batch.decodes:
        client.commit_decodes(1 if client.deliveries_pending else UNLIMITED)
    else:
        return False
    return True


def _go_through(
    client: Scheduler, longest: int, prefills: Prefills, completed: Completed, preempted: list[int]
) -> int:
    """Plan the running sequences in order of admission; return the budget that is left."""
    batch: RunningBatch = client.batch  # type: ignore[assignment]
    budget = client.max_num_batched_tokens
    for admission, task in list(batch.running.items()):
        if admission not in batch.running:
            break
        computed = batch.prefilling.get(admission)
        if computed is None:
            if batch.decodes_next(admission) and batch.take_or_preempt_one(admission, preempted):
                budget -= 1
            continue
        total = client.tasks.prompt[task] + client.tasks.generated[task]
        chunk = min(total - computed, longest, budget)
        if chunk <= 0:
            continue
        while batch.blocks_to_continue(computed, chunk) > batch.free:
            if batch.reclaim(-1):
                continue
            if batch.preempt_last(preempted) == admission:
                break
        if admission not in batch.running:
            break
        batch.take_chunk(admission, computed, chunk)
        prefills.append((chunk, computed))
        budget -= chunk
        if computed + chunk == total:
            del batch.prefilling[admission]
            completed.append((admission, task))
        else:
            batch.prefilling[admission] = computed + chunk
    if budget < 0:
        raise InternalError("decoding sequences were left without budget")
    batch.all_taken()
    return budget
