"""Builds the waiting queue and the batch that the settings of a client ask for."""

from __future__ import annotations

from hermes_flow.pools.llm.batch import RunningBatch
from hermes_flow.pools.llm.cached_batch import CachingBatch
from hermes_flow.pools.llm.reserving import CachingReservingBatch, ReservingBatch
from hermes_flow.pools.llm.state_blocks import ReservingStateBatch, StateBatch
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
    """Return a new batch with the client's blocks, prefix cache and preemption."""
    makes: dict[
        tuple[bool, bool], type[RunningBatch]
    ] = {  # by prefix cache and whether sequences are reserved
        (False, False): RunningBatch,
        (False, True): ReservingBatch,
        (True, False): CachingBatch,
        (True, True): CachingReservingBatch,
    }
    batch = makes[spec.prefix_cache, spec.preemption == "none"](tasks, spec.kv_blocks, spec.block_size)
    if spec.state_blocks:
        stateful = ReservingStateBatch if spec.preemption == "none" else StateBatch
        batch = stateful(tasks, spec.kv_blocks, spec.block_size)
        batch.state_blocks = spec.state_blocks
    batch.export_ps, batch.import_ps = spec.kv_export_ps, spec.kv_import_ps
    batch.swaps, batch.swap_ps_per_block = spec.preemption == "swap", spec.swap_ps_per_block
    return batch
