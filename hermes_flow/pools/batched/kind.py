"""The kind ``batched``: clients that serve several tasks of a stage in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from hermes_flow.config.physical_values import check_model
from hermes_flow.config.pools import pool_kinds
from hermes_flow.config.schema import Cluster
from hermes_flow.pools.batched.check import check_batched_pool
from hermes_flow.pools.batched.client import BatchedClient, BatchedTasks
from hermes_flow.pools.batched.lower import lower_batched, memory_warnings, with_passes
from hermes_flow.pools.batched.schema import BatchedPool
from hermes_flow.pools.client import Calls, column_of
from hermes_flow.pools.kind import Lowering, PoolKind, check_hardware
from hermes_flow.program.ops import Op
from hermes_flow.program.pools import BatchedClientSpec, Pool
from hermes_flow.program.program import Program
from hermes_flow.recording.recording import ClientRecord
from hermes_flow.routing import RoutingPolicy


@pool_kinds.register("batched")
class BatchedKind(PoolKind):
    """Encoders, vector search and rerankers."""

    schema: ClassVar[type[BatchedPool]] = BatchedPool
    work = "batched"
    notifies = True
    counts = ("tensor_parallel", "max_batch")

    def check(self, name: str, pool: BatchedPool, cluster: Cluster, problems: list[str]) -> None:
        """Check its encoder, its cores and its hardware."""
        key = f"cluster.pools.{name}"
        if pool.cores is not None and pool.cores < 1:
            problems.append(f"{key}.cores: {pool.cores} is below 1")
        figures = check_hardware(pool, key)
        if pool.model is not None:
            check_model(pool.model, f"{key}.model", figures)
        check_batched_pool(pool, key, problems, sound=not figures)
        problems += figures

    def reads_host(self, pool: BatchedPool) -> bool:
        """A search on a CPU is limited by the memory's bandwidth."""
        return not pool.devices

    def computes_on_host(self, pool: BatchedPool) -> bool:
        """A pass on a CPU occupies its cores."""
        return not pool.devices

    def lower_ops(self, ops: tuple[Op, ...], lowering: Lowering) -> tuple[Op, ...]:
        """Return the ops with the cost of the passes of those on batched pools."""
        return with_passes(ops, lowering.graph, lowering.cluster, lowering.cost, lowering.problems)

    def lower(
        self, name: str, pool: BatchedPool, routing: RoutingPolicy, ops: Sequence[Op], lowering: Lowering
    ) -> Pool:
        """Return the pool as the simulator sees it; warn of an index that is larger than the memory of a host."""
        lowering.warnings.extend(memory_warnings(name, pool, ops, lowering.graph))
        return lower_batched(name, pool, routing, ops)

    def build(
        self, program: Program, index: int, ops: Sequence[int], calls: Calls
    ) -> tuple[BatchedTasks, list[BatchedClient]]:
        """Return the tasks and the clients."""
        pool, own = program.pools[index], [program.ops[number] for number in ops]
        spec = pool.client
        assert isinstance(spec, BatchedClientSpec)
        passes = [op.cost for op in own if op.cost is not None]
        tasks = BatchedTasks(passes, column_of([op.tokens for op in own]), len(program.requests))
        return tasks, [BatchedClient(i, spec, tasks, calls.done) for i in range(pool.count)]

    def record(self, pool: int, spec: BatchedClientSpec, client: BatchedClient) -> ClientRecord:
        """Return how busy a client was, and its passes."""
        return ClientRecord(
            *(pool, client.index, 1, client.served, client.busy_ns),
            passes=client.steps,
            seats=spec.max_batch,
            seat="place",
        )
