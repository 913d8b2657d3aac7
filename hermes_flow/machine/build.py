"""The clients of a pool, as its spec says, and the tasks they share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from hermes_flow.pools.batched.client import BatchedClient, BatchedTasks
from hermes_flow.pools.llm.batching import batching_policies, policy_of_client
from hermes_flow.pools.llm.client import LLMClient
from hermes_flow.pools.llm.pipelined_client import PipelinedClient
from hermes_flow.pools.llm.prompt_blocks import PoolContent
from hermes_flow.pools.llm.tasks import LLMTasks
from hermes_flow.pools.memory.client import MemoryClient, MemoryTasks
from hermes_flow.pools.memory.tiered_store import Tier, TieredStore
from hermes_flow.pools.sequential.client import SequentialClient, SequentialTasks
from hermes_flow.program.kv_store import MemoryClientSpec
from hermes_flow.program.pools import BatchedClientSpec, LLMClientSpec
from hermes_flow.program.program import Program
from hermes_flow.program.units import Ints

AnyTasks: TypeAlias = LLMTasks | SequentialTasks | BatchedTasks | MemoryTasks
AnyClient: TypeAlias = LLMClient | PipelinedClient | SequentialClient | BatchedClient | MemoryClient
Called: TypeAlias = Callable[[int, int], None]  # (task, now_ns)


def build_clients(
    program: Program,
    index: int,
    numbers: list[int],
    done: Called,
    begun: Called,
    *,
    notify: bool,
) -> tuple[AnyTasks, list[AnyClient]]:
    """Return the tasks of pool ``index``, which serves the ops ``numbers``, and its clients."""
    pool, ops, requests = program.pools[index], [program.ops[number] for number in numbers], program.requests
    spec = pool.client
    clients: list[AnyClient]
    if isinstance(spec, LLMClientSpec):
        content = PoolContent(program, numbers) if spec.prefix_cache else None
        tasks = LLMTasks(
            prompt=_column([op.prompt for op in ops]),
            output=_column([op.output for op in ops]),
            priority=None if requests.priority is None else _column([requests.priority] * len(ops)),
            block_keys=None if content is None else content.prompt_keys,
            answer_keys=None if content is None else content.answer_keys,
        )
        if any(op.context_from is not None or op.emits_first for op in ops):
            tasks.preloaded = {}
        if spec.kv_export_ps:
            tasks.staying = _staying(program, numbers)
        tasks.emits_first = any(op.emits_first for op in ops)
        policy = spec.policy or batching_policies.parse(spec.batching, "batching")
        make = PipelinedClient if spec.stages > 1 else LLMClient
        clients = [
            make(i, spec, tasks, policy_of_client(policy), done, begun, notify=notify)
            for i in range(pool.count)
        ]
        return tasks, clients
    if isinstance(spec, BatchedClientSpec):
        passes = [op.cost for op in ops if op.cost is not None]
        batched = BatchedTasks(passes, _column([op.tokens for op in ops]), len(requests))
        clients = [BatchedClient(i, spec, batched, done) for i in range(pool.count)]
        return batched, clients
    if isinstance(spec, MemoryClientSpec):
        retrievals = MemoryTasks([op.lookup for op in ops if op.lookup is not None], len(requests))
        stores = _stores(spec, pool.count)
        return retrievals, [MemoryClient(i, spec, retrievals, stores[i], done) for i in range(pool.count)]
    demands = SequentialTasks(_column([op.service_ns for op in ops]))
    clients = [SequentialClient(i, spec, demands, done, notify=notify) for i in range(pool.count)]
    return demands, clients


def _staying(program: Program, numbers: list[int]) -> set[int]:
    """Return the tasks of these ops whose KV goes to no other client."""
    count = len(program.requests)
    staying: set[int] = set()
    for place, number in enumerate(numbers):
        awaited = np.zeros(count, dtype=bool)
        for op in program.ops:
            if op.kv_from == number:
                awaited |= True if op.taken is None else op.taken
        staying.update((place * count + np.flatnonzero(~awaited)).tolist())
    return staying


def _stores(spec: MemoryClientSpec, count: int) -> list[TieredStore]:
    """Return each client's tiers, those that several share being the same."""
    tiers = {
        place: Tier(tier.capacity_bytes, tier.shared_by) for tier in spec.tiers for place in tier.memories
    }
    return [TieredStore([tiers[tier.memories[index]] for tier in spec.tiers]) for index in range(count)]


def _column(columns: list[Ints | None]) -> list[int]:
    return [value for column in columns if column is not None for value in column.tolist()]
