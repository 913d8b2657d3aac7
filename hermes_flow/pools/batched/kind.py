"""The kind ``batched``: clients that serve several tasks of a stage in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from hermes_flow.config.physical_values import check_model
from hermes_flow.config.pools import pool_kinds
from hermes_flow.config.schema import Cluster
from hermes_flow.pools.batched.check import check_batched_pool, encoder_bytes
from hermes_flow.pools.batched.client import BatchedClient, BatchedTasks
from hermes_flow.pools.batched.lower import lower_batched, lower_passes, memory_warnings
from hermes_flow.pools.batched.schema import BatchedPool
from hermes_flow.pools.client import Calls, column_of
from hermes_flow.pools.kind import Asked, AskedWork, Lowering, PoolKind
from hermes_flow.program.pools import BatchedClientSpec, Pool
from hermes_flow.program.program import Program
from hermes_flow.program.stage_sizes import UNKNOWN
from hermes_flow.program.work import Passes
from hermes_flow.recording.recording import ClientRecord, Recording
from hermes_flow.routing import RoutingPolicy
from hermes_flow.stages.placed import PlacedStage


@pool_kinds.register("batched")
class BatchedKind(PoolKind):
    """The kind of pool for encoders, vector search and rerankers."""

    schema: ClassVar[type[BatchedPool]] = BatchedPool
    work = "batched"
    takes_back = True
    measured = True
    elastic = True
    notifies = True

    def check(self, name: str, pool: BatchedPool, cluster: Cluster, problems: list[str]) -> None:
        """Check its encoder, its cores and its hardware."""
        key = f"cluster.pools.{name}"
        figures: list[str] = []
        if pool.model is not None:
            check_model(pool.model, f"{key}.model", figures)
        check_batched_pool(pool, key, problems, sound=not figures)
        problems += figures

    def reads_host(self, pool: BatchedPool) -> bool:
        """Return whether a pass reads host memory, which limits searches on a CPU."""
        return not pool.devices

    def computes_on_host(self, pool: BatchedPool) -> bool:
        """Return whether a pass occupies host cores, as passes on a CPU do."""
        return not pool.devices

    def lower_work(
        self, placed: Sequence[PlacedStage], places: Sequence[int], lowering: Lowering
    ) -> AskedWork:
        """Return the passes that each stage has a place in."""
        return AskedWork(lower_passes(placed, places, lowering))

    def lower(
        self, name: str, pool: BatchedPool, routing: RoutingPolicy, asked: Sequence[Asked], lowering: Lowering
    ) -> Pool:
        """Return the pool as the simulator sees it; warn of an index that is larger than the memory of a host."""
        lowering.warnings.extend(memory_warnings(name, pool, asked))
        return lower_batched(name, pool, routing, asked)

    def build(
        self, program: Program, index: int, ops: Sequence[int], calls: Calls
    ) -> tuple[BatchedTasks, list[BatchedClient]]:
        """Return the tasks and the clients."""
        pool, own = program.pools[index], [program.ops[number] for number in ops]
        spec = pool.client
        assert isinstance(spec, BatchedClientSpec)
        passes = [op.work for op in own if isinstance(op.work, Passes)]
        costs, tokens = [work.cost for work in passes], column_of([work.tokens for work in passes])
        tasks = BatchedTasks(costs, tokens, len(program.requests))
        if any(work.known_ns is not None for work in passes):
            tasks.known_ns = column_of(
                [
                    np.full_like(work.tokens, UNKNOWN) if work.known_ns is None else work.known_ns
                    for work in passes
                ]
            )
        return tasks, [BatchedClient(i, spec, tasks, calls.done) for i in range(pool.count)]

    def renew(
        self, program: Program, index: int, tasks: BatchedTasks, calls: Calls, place: int
    ) -> BatchedClient:
        """Return a client that starts again."""
        spec = program.pools[index].client
        assert isinstance(spec, BatchedClientSpec)
        return BatchedClient(place, spec, tasks, calls.done)

    def weight_bytes(self, pool: BatchedPool, reckoned: object) -> float:
        """Return the bytes of the encoder on one device; 0 without one."""
        return encoder_bytes(pool)

    def servers(self, spec: BatchedClientSpec) -> int:
        """Return one: a client makes one pass at a time."""
        return 1

    def offered_ns(self, recording: Recording, pool: int, spec: BatchedClientSpec) -> float:
        """Return the time that the tasks would take in full passes.

        A forward pass takes a time by its tokens, which full passes do not change.
        """
        total = 0.0
        for op, record in zip(recording.program.ops, recording.ops, strict=True):
            if op.pool != pool or not isinstance(op.work, Passes):
                continue
            tasks, cost = int((record.finish_ns >= 0).sum()), op.work.cost
            if cost.step is not None:
                return float(sum(own.busy_ns for own in recording.clients if own.pool == pool))
            full = min(spec.max_batch, len(cost.ns) - 1)
            total += tasks * cost.ns[full] / max(full, 1)
        return total

    def record(self, pool: int, spec: BatchedClientSpec, client: BatchedClient) -> ClientRecord:
        """Return the busy time of a client, and its passes."""
        return ClientRecord(
            *(pool, client.index, 1, client.served, client.busy_ns),
            passes=client.steps,
            seats=spec.max_batch,
            seat="place",
        )
