"""Builds the clients of a pool that schedules by priority."""

from __future__ import annotations

from hermes_flow.pools.client import Calls
from hermes_flow.pools.llm.by_priority.blocks import Blocks
from hermes_flow.pools.llm.by_priority.scheduler import PriorityScheduler
from hermes_flow.pools.llm.by_priority.sequence import Sequence
from hermes_flow.pools.llm.deciding_client import DecidingClient
from hermes_flow.pools.llm.tasks import LLMTasks
from hermes_flow.program.pools import LLMClientSpec


def priority_clients(count: int, spec: LLMClientSpec, tasks: LLMTasks, calls: Calls) -> list[DecidingClient]:
    """Return ``count`` clients, each with a scheduler and blocks of its own."""

    def sequence_of(task: int) -> Sequence:
        return Sequence(task, tasks.prompt[task], tasks.output[task], tasks.priority_of(task))

    def scheduler() -> PriorityScheduler:
        blocks = Blocks(
            tasks, spec.kv_blocks, spec.block_size, spec.sequence_blocks, caches=spec.prefix_cache
        )
        return PriorityScheduler(
            blocks,
            spec.max_num_seqs,
            spec.max_num_batched_tokens,
            spec.longest_chunk,
            overlap=bool(spec.lookahead),
        )

    return [DecidingClient(i, spec, tasks, calls, scheduler(), sequence_of) for i in range(count)]
