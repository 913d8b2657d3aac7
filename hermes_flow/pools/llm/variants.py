"""Which queue and which batch a client's modes ask for: packing, preemption, prefix cache."""

from __future__ import annotations

from hermes_flow.pools.llm.batch import RunningBatch
from hermes_flow.pools.llm.cached_batch import CachingBatch
from hermes_flow.pools.llm.reserving import ReservingBatch
from hermes_flow.pools.llm.swapping import SwappingBatch
from hermes_flow.pools.llm.tasks import LLMTasks
from hermes_flow.pools.llm.waiting import ArrivalQueue, SortedQueue, WaitingQueue
from hermes_flow.program.pools import LLMClientSpec


def waiting_queue(spec: LLMClientSpec, tasks: LLMTasks) -> WaitingQueue:
    """Return a new queue in the client's packing order."""
    order = spec.packing
    if order is None:
        return ArrivalQueue(tasks.since_ps)
    return SortedQueue(lambda task, at_ps: order.key(tasks, task, at_ps), tasks.since_ps)


def running_batch(spec: LLMClientSpec, tasks: LLMTasks) -> RunningBatch:
    """Return a new batch with the client's blocks, prefix cache and way to preempt."""
    batch = _batch(spec, tasks)
    batch.export_ps, batch.import_ps = spec.kv_export_ps, spec.kv_import_ps
    return batch


def _batch(spec: LLMClientSpec, tasks: LLMTasks) -> RunningBatch:
    if spec.prefix_cache:
        return CachingBatch(tasks, spec.kv_blocks, spec.block_size)
    if spec.preemption == "none":
        return ReservingBatch(tasks, spec.kv_blocks, spec.block_size)
    if spec.preemption == "swap":
        return SwappingBatch(tasks, spec.kv_blocks, spec.block_size, spec.swap_ps_per_block)
    return RunningBatch(tasks, spec.kv_blocks, spec.block_size)
