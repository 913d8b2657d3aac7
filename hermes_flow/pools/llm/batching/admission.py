"""Admits waiting sequences into the step that is being planned; all batching policies use it."""

from __future__ import annotations

from hermes_flow.pools.llm.batch import RunningBatch
from hermes_flow.pools.llm.scheduler import UNLIMITED, Completed, Prefills, Scheduler
from hermes_flow.pools.llm.tasks import LLMTasks


def admit_waiting(
    client: Scheduler,
    budget: int,
    prefills: Prefills,
    completed: Completed,
    *,
    cut_last: bool = False,
    with_decodes: bool = True,
    seats: int | None = None,
    longest_chunk: int = UNLIMITED,
) -> int:
    """Admit waiting tasks in order, while seats, KV blocks and the token budget of the step last.

    Parameters:
        client: the scheduler; its queue, batch and tasks change as sequences are admitted.
        budget: the tokens that are left of the step's ``max_num_batched_tokens``.
        prefills, completed: the step so far, as ``commit_step`` takes it; both grow.
        cut_last: True if a prompt longer than the budget is cut to it; it stays in ``batch.prefilling``. If False,
            prompts are admitted whole, and one longer than ``max_num_batched_tokens`` is admitted where it is the
            only prompt of its step, which then exceeds the budget.
        with_decodes: True if the step also decodes. A sequence that arrives with its KV computed then takes its
            decode tokens from the budget; if False, it waits for the next decode step and takes nothing.
        seats: the most sequences to admit; by default all the free seats of the client.
        longest_chunk: the most tokens of one prompt, where prompts are cut.

    Returns the tokens of the first task left in the queue that are computed already, 0 where the free seats ran
    out or nobody is left. What the cache evicts meanwhile changes them.
    """
    # One loop that every plan runs: a call for each sequence would make it dearer, so what may stop it stands here.
    # Calls of a known class are much faster in the compiled core than those of a protocol.
    batch: RunningBatch = client.batch  # type: ignore[assignment]
    tasks: LLMTasks = client.tasks  # type: ignore[assignment]
    waiting = client.waiting
    kept = tasks.kept
    asking = tasks.asking
    longest = client.max_num_batched_tokens
    loads, images = batch.loads, batch.images
    if seats is None:
        seats = client.max_num_seqs - len(batch.running)
    while waiting and seats > 0:
        task = waiting[0]
        found = batch.find(task)
        computed = found[1]
        if found[0] > batch.free:
            if budget > 0 and batch.reclaim(task):
                continue
            return computed
        if loads is not None and budget > 0 and loads.load_first(task, found):
            continue
        if kept and task in kept:
            if asking and task in asking:
                client.enter(waiting.popleft())  # it gets blocks for its KV, and no seat yet
                continue
            if with_decodes:
                if budget < client.tokens_per_decode:
                    return computed
                budget -= client.tokens_per_decode
            client.enter(waiting.popleft())
            seats -= 1
            continue
        left = chunk = tasks.prompt[task] + tasks.generated[task] - computed
        if left > budget or left > longest_chunk:
            if cut_last:
                if budget <= 0:
                    return computed
                chunk = budget if budget < longest_chunk else longest_chunk
            elif prefills or left <= longest:
                return computed
        if images is not None and not images.fits(task, computed, client.tail_ps):
            return computed
        waiting.popleft()
        admission = batch.admit(task, found, chunk, client.tail_ps)
        prefills.append((chunk, computed))
        if chunk == left:
            completed.append((admission, task))
        else:
            batch.prefilling[admission] = computed + chunk
        seats -= 1
        budget -= chunk
    return 0
