"""Builds the waiting queue and the batch that the settings of a client ask for."""

from __future__ import annotations

from hermes_flow.pools.llm.adapter_queue import AdapterQueue
from hermes_flow.pools.llm.adapter_slots import AdapterSlots
from hermes_flow.pools.llm.batch import RunningBatch
from hermes_flow.pools.llm.cached_batch import CachingBatch
from hermes_flow.pools.llm.plain_batch import PlainBatch
from hermes_flow.pools.llm.plain_cached_batch import PlainCachingBatch
from hermes_flow.pools.llm.reserving import CachingReservingBatch, ReservingBatch
from hermes_flow.pools.llm.sequence_blocks import (
    CachingReservingSequenceBatch,
    CachingSequenceBatch,
    ReservingSequenceBatch,
    SequenceBatch,
)
from hermes_flow.pools.llm.tasks import LLMTasks
from hermes_flow.pools.llm.waiting import ArrivalQueue, SortedQueue, WaitingQueue
from hermes_flow.program.pools import LLMClientSpec

# By prefix cache and whether sequences are reserved.
_BATCHES: dict[tuple[bool, bool], type[RunningBatch]] = {
    (False, False): PlainBatch,
    (False, True): ReservingBatch,
    (True, False): CachingBatch,
    (True, True): CachingReservingBatch,
}
_PER_SEQUENCE: dict[
    tuple[bool, bool],
    type[SequenceBatch | ReservingSequenceBatch | CachingSequenceBatch | CachingReservingSequenceBatch],
] = {
    (False, False): SequenceBatch,
    (False, True): ReservingSequenceBatch,
    (True, False): CachingSequenceBatch,
    (True, True): CachingReservingSequenceBatch,
}


def waiting_queue(spec: LLMClientSpec, tasks: LLMTasks) -> WaitingQueue:
    """Return a new queue in the client's packing order."""
    if tasks.adapter and spec.adapters is not None:
        return AdapterQueue(tasks.adapter, AdapterSlots(spec.adapters), tasks.reserved)
    order = spec.packing
    if order is None:
        return ArrivalQueue(tasks.since_ps, tasks.reserved)
    return SortedQueue(lambda task, at_ps: order.key(tasks, task, at_ps), tasks.since_ps, tasks.reserved)


def running_batch(spec: LLMClientSpec, tasks: LLMTasks) -> RunningBatch:
    """Return a new batch with the client's blocks, prefix cache and preemption."""
    cached, reserves = spec.prefix_cache, spec.preemption == "none"
    batch: RunningBatch
    if spec.offload is not None:
        from hermes_flow.pools.llm.offload.batch import OffloadingBatch

        batch = OffloadingBatch(tasks, spec.kv_blocks, spec.block_size, spec.offload)
    elif spec.sequence_blocks:
        batch = _PER_SEQUENCE[cached, reserves](tasks, spec.kv_blocks, spec.block_size)
        batch.sequence_blocks = spec.sequence_blocks
    else:
        kind = _BATCHES[cached, reserves]
        plain = not (tasks.leaving or tasks.receives or tasks.images is not None or tasks.adapter)
        if kind is PlainBatch and not plain:
            kind = RunningBatch
        if kind is CachingBatch and plain and tasks.chains is not None:
            batch = PlainCachingBatch(tasks, spec.kv_blocks, spec.block_size, tasks.chains)
        else:
            batch = kind(tasks, spec.kv_blocks, spec.block_size)
    batch.export_ps, batch.import_ps = spec.kv_export_ps, spec.kv_import_ps
    batch.swaps, batch.swap_ps_per_block = spec.preemption == "swap", spec.swap_ps_per_block
    return batch
