"""Pass 5, batched pools: what the passes of each op cost, and which clients share the memory of a machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np

from hermes_flow.config.convert import child
from hermes_flow.config.schema import Cluster
from hermes_flow.cost import CostModel
from hermes_flow.cost.energy import power_notes
from hermes_flow.cost.passes import Site, cut
from hermes_flow.cost.retrieval import Index
from hermes_flow.errors import ConfigError
from hermes_flow.pools.batched.schema import BatchedPool
from hermes_flow.pools.hosts import host_power
from hermes_flow.program.ops import Op
from hermes_flow.program.pools import BatchedClientSpec, Pool
from hermes_flow.program.units import Ints
from hermes_flow.routing import RoutingPolicy
from hermes_flow.stages.graph import Graph, Stage
from hermes_flow.stages.kind import BatchedStage
from hermes_flow.stages.vector_search import VectorSearch


def with_passes(
    ops: Sequence[Op], graph: Graph, cluster: Cluster, model: CostModel, problems: list[str]
) -> tuple[Op, ...]:
    """Return the ops with the cost of the passes of those on batched pools; problems are appended.

    Those of one stage (turns of a loop, pauses of an answer) have the same cost, and share their passes.
    """
    pools = list(cluster.pools.items())
    turns: dict[tuple[str, int], list[int]] = {}
    for number, op in enumerate(ops):
        if isinstance(pools[op.pool][1], BatchedPool) and op.tokens is not None:
            turns.setdefault((op.stages[0], op.pool), []).append(number)
    lowered = list(ops)
    for (stage, index), numbers in turns.items():
        name, pool = pools[index]
        assert isinstance(pool, BatchedPool)
        own = [ops[number] for number in numbers]
        site = Site(f"cluster.pools.{name}", pool, model, np.concatenate([_taken_tokens(op) for op in own]))
        try:
            shared = _with_pass(own, graph, graph.stages[stage], site)
        except ConfigError as error:
            if str(error) not in problems:
                problems.append(str(error))
            continue
        for number, op in zip(numbers, shared, strict=True):
            lowered[number] = op
    return tuple(lowered)


def lower_batched(name: str, pool: BatchedPool, routing: RoutingPolicy, ops: Sequence[Op]) -> Pool:
    """Return the pool as the simulator sees it; ``ops`` are those that it serves."""
    price, devices = pool.hardware.usd_per_hour, max(1, pool.devices)
    power = host_power(pool, f"cluster.pools.{name}.hardware", devices, by_pass=True)
    waits = f", which waits up to {pool.wait_ms:g} ms for them" if pool.wait_ms else ""
    notes = [f"at most {pool.max_batch} tasks of a stage in a pass{waits}"]
    for op in ops:
        if op.cost is not None:
            notes += [note for note in op.cost.provenance if note not in notes]
    return Pool(
        name=name,
        hardware=pool.hardware.name,
        count=pool.count,
        routing=routing,
        client=BatchedClientSpec(
            max_batch=pool.max_batch,
            wait_ns=round(pool.wait_ms * 1e6),
            model=None if pool.model is None else pool.model.name,
            devices=pool.devices,
        ),
        usd_per_hour=None if price is None else price * devices,
        notes=(*notes, *power_notes(pool.hardware, power)),
        energy=power,
    )


def memory_warnings(name: str, pool: BatchedPool, ops: Sequence[Op], graph: Graph) -> list[str]:
    """Return a warning for each index that does not fit the memory of the pool's hosts that search it."""
    found: dict[str, str] = {}
    for op in ops:
        stage = graph.stages[op.stages[0]]
        if not isinstance(stage.params, VectorSearch):
            continue
        size, memory = stage.params.index.memory_bytes / 1e9, pool.hardware.memory_gb
        if size > memory:
            found[stage.name] = (
                f"the index of {stage.name} takes {size:,.0f} GB, a host of {name} has {memory:,g} GB; it is "
                "searched as if it were in that memory"
            )
    return list(found.values())


def _taken_tokens(op: Op) -> Ints:
    assert op.tokens is not None
    return op.tokens if op.taken is None else op.tokens[op.taken]


def _with_pass(ops: Sequence[Op], graph: Graph, stage: Stage, site: Site) -> list[Op]:
    """Return the ops of one stage at a site with the cost of their passes."""
    site = replace(site, model=stage.options.model, searched=_searched(graph, stage))
    try:
        cost = cast(BatchedStage, stage.params).passes(site)
    except ConfigError as error:
        if error.key.startswith("cluster."):
            raise
        raise ConfigError(child(stage.key, error.key), error.problem) from None
    if cost.step is None:
        return [replace(op, cost=cost, tokens=np.zeros_like(cast(Ints, op.tokens))) for op in ops]
    encoder = site.pool.model
    assert encoder is not None
    return [replace(op, cost=cost, tokens=cut(cast(Ints, op.tokens), cost.sequences, encoder)) for op in ops]


def _searched(graph: Graph, stage: Stage) -> Index | None:
    """Return the index that was searched last before a stage."""
    found = [
        before.params.index for before in graph.before(stage.name) if isinstance(before.params, VectorSearch)
    ]
    return found[-1] if found else None
