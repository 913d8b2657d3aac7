"""Phase 5, batched pools: the cost of each stage's passes, and the memory that clients of a host share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np

from hermes_flow.config.convert import child
from hermes_flow.cost.energy import power_notes
from hermes_flow.cost.passes import Site, cut
from hermes_flow.cost.retrieval import Index
from hermes_flow.errors import ConfigError
from hermes_flow.pools.batched.schema import BatchedPool
from hermes_flow.pools.hosts import host_power
from hermes_flow.pools.kind import Asked, Lowering, at_pool
from hermes_flow.program.pools import BatchedClientSpec, Pool
from hermes_flow.program.units import Ints, bytes_to_gb, ms_to_ns
from hermes_flow.program.work import PassCost, Passes
from hermes_flow.routing import RoutingPolicy
from hermes_flow.stages.graph import Graph, Stage
from hermes_flow.stages.kind import BatchedStage
from hermes_flow.stages.placed import PlacedStage
from hermes_flow.stages.vector_search import VectorSearch


def lower_passes(
    placed: Sequence[PlacedStage], places: Sequence[int], lowering: Lowering
) -> dict[int, Passes]:
    """Return the passes of the stages at ``places``, those on batched pools; problems are appended.

    Those of one stage (turns of a loop, pauses of an answer) have the same cost, and share their passes. Stages with
    a problem are left out.
    """
    pools, graph, problems = list(lowering.cluster.pools.items()), lowering.graph, lowering.problems
    turns: dict[tuple[str, int], list[int]] = {}
    for place in places:
        turns.setdefault((placed[place].stage.name, placed[place].pool), []).append(place)
    passes: dict[int, Passes] = {}
    for (_, index), own in turns.items():
        name, pool = pools[index]
        assert isinstance(pool, BatchedPool)
        stage = placed[own[0]].stage
        tokens = np.concatenate([placed[place].taken_tokens for place in own])
        key, searched = f"cluster.pools.{name}", _searched(graph, stage)
        try:
            cost = _pass_cost(
                stage, Site(key, pool, lowering.costs[name], tokens, stage.options.model, searched)
            )
        except ConfigError as error:
            told = str(at_pool(error, name, pool))
            if told not in problems:
                problems.append(told)
            continue
        if pool.max_batch > 1 and any(placed[place].known_ns is not None for place in own):
            problems.append(
                f"{key}.max_batch: {pool.max_batch}, but stage {stage.name!r} has measured times of single tasks; "
                "expected 1"
            )
        passes |= {
            place: Passes(cost, _pass_tokens(placed[place].tokens, cost, pool), placed[place].known_ns)
            for place in own
        }
    return passes


def lower_batched(name: str, pool: BatchedPool, routing: RoutingPolicy, asked: Sequence[Asked]) -> Pool:
    """Return the pool as the simulator sees it; ``asked`` are the stages that it serves with their work."""
    price, devices = pool.hardware.usd_per_hour, max(1, pool.devices)
    power = host_power(pool, f"cluster.pools.{name}.hardware", devices, by_pass=True)
    waits = f", which waits up to {pool.wait_ms:g} ms for them" if pool.wait_ms else ""
    notes = [f"at most {pool.max_batch} tasks of a stage in a pass{waits}"]
    for own in asked:
        if isinstance(own.work, Passes):
            notes += [note for note in own.work.cost.provenance if note not in notes]
    return Pool(
        name=name,
        hardware=pool.hardware.name,
        count=pool.count,
        routing=routing,
        client=BatchedClientSpec(
            max_batch=pool.max_batch,
            wait_ns=ms_to_ns(pool.wait_ms),
            model=None if pool.model is None else pool.model.name,
            devices=pool.devices,
        ),
        usd_per_hour=None if price is None else price * devices,
        notes=(*notes, *power_notes(pool.hardware, power)),
        energy=power,
    )


def memory_warnings(name: str, pool: BatchedPool, asked: Sequence[Asked]) -> list[str]:
    """Return a warning for each index that does not fit the memory of the pool's hosts that search it."""
    found: dict[str, str] = {}
    for own in asked:
        stage = own.stage.stage
        if not isinstance(stage.params, VectorSearch):
            continue
        size, memory = bytes_to_gb(stage.params.index.memory_bytes), pool.hardware.memory_gb
        if size > memory:
            found[stage.name] = (
                f"the index of {stage.name} takes {size:,.0f} GB, a host of {name} has {memory:,g} GB; it is "
                "searched as if it were in that memory"
            )
    return list(found.values())


def _pass_cost(stage: Stage, site: Site) -> PassCost:
    try:
        return cast(BatchedStage, stage.params).passes(site)
    except ConfigError as error:
        if error.key.startswith("cluster."):
            raise
        raise ConfigError(child(stage.key, error.key), error.problem) from None


def _pass_tokens(tokens: Ints, cost: PassCost, pool: BatchedPool) -> Ints:
    """Return the tokens that each task has in a pass: none where it is not a forward pass."""
    if cost.step is None:
        return np.zeros_like(tokens)
    if cost.sequence_tokens is not None:
        return tokens
    assert pool.model is not None
    return cut(tokens, cost.sequences, pool.model)


def _searched(graph: Graph, stage: Stage) -> Index | None:
    """Return the index that was searched last before a stage."""
    found = [
        before.params.index for before in graph.before(stage.name) if isinstance(before.params, VectorSearch)
    ]
    return found[-1] if found else None
