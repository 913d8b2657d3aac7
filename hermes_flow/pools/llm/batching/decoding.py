"""Plans a step in which every running sequence decodes and no prompt is computed."""

from __future__ import annotations

from hermes_flow.pools.llm.scheduler import UNLIMITED, Scheduler


def decode_all(client: Scheduler) -> bool:
    """Plan a run of pure decode steps, or one step where KV moves or a sequence was preempted.

    A decoding sequence without a free block preempts the one admitted last. The run is one step long where the
    queue waits for seats and blocks that are free after the step in flight. Returns False where nobody decodes.
    """
    batch = client.batch
    if not batch.decodes:
        return False
    if batch.needed_blocks() <= batch.free:
        if batch.copy_ps:
            batch.take_iteration()
            client.commit_step([], batch.decodes, [])
        else:
            client.commit_decodes(1 if client.waiting and client.deliveries_pending else UNLIMITED)
        return True
    preempted: list[int] = []
    batch.take_or_preempt(preempted)
    client.requeue(preempted)
    if not batch.decodes and not batch.copy_ps:
        return False
    client.commit_step([], batch.decodes, [])
    return True
