"""The kind ``memory``: stores of KV in tiers of memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from hermes_flow.config.pools import pool_kinds
from hermes_flow.config.schema import Cluster
from hermes_flow.pools.client import Calls
from hermes_flow.pools.kind import Asked, AskedWork, Lowering, PoolKind
from hermes_flow.pools.memory.check import check_memory_pool, check_room, check_tiers, problems_at_sites
from hermes_flow.pools.memory.client import MemoryClient
from hermes_flow.pools.memory.first_contents import fill
from hermes_flow.pools.memory.lower import lower_memory, lower_retrievals, with_tiers
from hermes_flow.pools.memory.record import StoreUse, tier_records
from hermes_flow.pools.memory.schema import MemoryPool
from hermes_flow.pools.memory.summary import memory_summary
from hermes_flow.pools.memory.tasks import MemoryTasks
from hermes_flow.pools.memory.tiered_store import Tier, TieredStore
from hermes_flow.program.kv_store import KVLookup, MemoryClientSpec
from hermes_flow.program.network import HostMemory
from hermes_flow.program.pools import Pool
from hermes_flow.program.program import Program
from hermes_flow.recording.recording import ClientRecord
from hermes_flow.routing import RoutingPolicy
from hermes_flow.stages.graph import Stage
from hermes_flow.stages.placed import PlacedStage


@pool_kinds.register("memory")
class MemoryKind(PoolKind):
    """The kind of pool in which retrievals find the KV of past contexts."""

    schema: ClassVar[type[MemoryPool]] = MemoryPool
    work = "memory"
    takes_back = True
    notifies = True
    keeps_contexts = True

    def check(self, name: str, pool: MemoryPool, cluster: Cluster, problems: list[str]) -> None:
        """Check its tiers, its neighbour and its hardware."""
        check_memory_pool(name, pool, cluster, problems)
        check_room(name, pool, cluster, problems)

    def check_served(self, name: str, pool: MemoryPool, stage: Stage, problems: list[str]) -> None:
        """Check that the tiers which a retrieval names exist."""
        check_tiers(name, pool, stage, problems)

    def problems_at_sites(self, pool: MemoryPool, pools: Mapping[str, Any]) -> Iterator[str]:
        """Yield what keeps stores from being at several sites: memories and contents of more than one."""
        return problems_at_sites(pool, pools)

    def beside(self, pool: MemoryPool) -> str | None:
        """Return the LLM pool whose clients load what these stores find."""
        return pool.beside

    def reads_host(self, pool: MemoryPool) -> bool:
        """A tier may be part of a machine's memory."""
        return any(tier.in_host for tier in pool.tiers.values())

    def lower_work(
        self, placed: Sequence[PlacedStage], places: Sequence[int], lowering: Lowering
    ) -> AskedWork:
        """Return the lookups of each retrieval, and the prefills that begin with their contexts."""
        return AskedWork(*lower_retrievals(placed, places, lowering))

    def lower(
        self, name: str, pool: MemoryPool, routing: RoutingPolicy, asked: Sequence[Asked], lowering: Lowering
    ) -> Pool:
        """Return the pool as the simulator sees it."""
        return lower_memory(name, pool, routing, lowering.cluster)

    def place(self, lowered: Pool, memories: list[HostMemory]) -> Pool:
        """Return the pool with its tiers among the memories of the program."""
        return with_tiers(lowered, memories)

    def build(
        self, program: Program, index: int, ops: Sequence[int], calls: Calls
    ) -> tuple[MemoryTasks, list[MemoryClient]]:
        """Return the retrievals and the stores."""
        pool = program.pools[index]
        spec = pool.client
        assert isinstance(spec, MemoryClientSpec)
        asked = [program.ops[number].work for number in ops]
        tasks = MemoryTasks([work for work in asked if isinstance(work, KVLookup)], len(program.requests))
        stores = _stores(spec, pool.count)
        if spec.begins_with != "nothing":
            fill(stores, spec.begins_with, tasks.lookups)
        return tasks, [
            MemoryClient(i, spec, tasks, stores[i], _rates(spec, i, program.hosts), calls.done)
            for i in range(pool.count)
        ]

    def record(self, pool: int, spec: MemoryClientSpec, client: MemoryClient) -> ClientRecord:
        """Return the busy time of a store, and its use of its tiers."""
        use = StoreUse(tier_records(client, spec), client.misses)
        return ClientRecord(pool, client.index, 1, client.served, client.busy_ns, own=use)

    def summarize(self, lowered: Pool, records: Sequence[ClientRecord]) -> dict[str, Any]:
        """Return the hits per tier, as the section ``memory``."""
        return {"memory": memory_summary(records)}


def _rates(spec: MemoryClientSpec, client: int, hosts: Sequence[HostMemory]) -> list[float]:
    """Return the bytes a ns at which a lone read of each tier streams, that of other stores last."""
    ways = [spec.reads(tier, client) for tier in spec.tiers]
    ways += spec.remote_reads(client)[:1]
    return [min(hosts[place].bytes_per_ns for place in way) for way in ways]


def _stores(spec: MemoryClientSpec, count: int) -> list[TieredStore]:
    """Return each client's tiers, those that several share being the same."""
    tiers = {
        place: Tier(tier.capacity_bytes, tier.shared_by) for tier in spec.tiers for place in tier.memories
    }
    return [
        TieredStore(
            [tiers[tier.memories[index]] for tier in spec.tiers],
            [tiers[place] for place in spec.remote_memories(index)],
        )
        for index in range(count)
    ]
