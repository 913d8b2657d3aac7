"""Pass 2: does the config describe a system that can run? Finds every problem, each with its key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hermes_flow.batching import batching_policies
from hermes_flow.compiler.figures import check_figures, check_model
from hermes_flow.compiler.parse import Graph, Stage
from hermes_flow.compiler.program import Requests
from hermes_flow.compiler.stages import stage_kinds
from hermes_flow.config.registry import Registry
from hermes_flow.config.schema import Cluster, LLMPool, SequentialPool
from hermes_flow.coordinator.routing import routing_policies
from hermes_flow.errors import ConfigError, did_you_mean
from hermes_flow.memory.capacity import kv_capacity


def check(graph: Graph, cluster: Cluster, problems: list[str]) -> dict[str, str]:
    """Append every problem to ``problems`` (those of parsing, so far); return the pool that serves each stage."""
    whole = not problems
    for name, pool in cluster.pools.items():
        key = f"cluster.pools.{name}"
        _check_counts(pool, key, problems)
        _check_names(pool, cluster, key, problems)
        figures: list[str] = []
        check_figures(pool.hardware, f"{key}.hardware", figures)
        if isinstance(pool, LLMPool):
            check_model(pool.model, f"{key}.model", figures)
            _check_llm_pool(pool, key, problems, sound=not figures)
        elif pool.cores is None and pool.hardware.cores is None:
            problems.append(f"{key}.cores: null, and {pool.hardware.name} has no figure for it either")
        problems += figures
    placement = {}
    for stage in graph.stages.values():
        pool_name = _pool_of(stage, cluster, problems)
        if pool_name is not None:
            placement[stage.name] = pool_name
    _check_llm_stages(graph, placement, cluster, problems)
    if whole:
        _check_orphans(graph, problems)
    return placement


def check_prefixes(requests: Requests, cluster: Cluster, problems: list[str]) -> None:
    """Append a problem for every pool whose blocks the workload's prefix blocks cannot be cut into."""
    if requests.prefixes is None:
        return
    tokens = requests.prefixes.block_tokens
    for name, pool in cluster.pools.items():
        if not isinstance(pool, LLMPool) or not pool.prefix_cache or pool.block_size < 1:
            continue
        if tokens % pool.block_size and pool.block_size % tokens:
            problems.append(
                f"cluster.pools.{name}.block_size: {pool.block_size} neither divides nor is a multiple of the "
                f"{tokens} tokens of the workload's prefix blocks"
            )


def _check_counts(pool: LLMPool | SequentialPool, key: str, problems: list[str]) -> None:
    names = ["count"]
    if isinstance(pool, LLMPool):
        names += [
            "tensor_parallel",
            "pipeline_parallel",
            "max_num_seqs",
            "max_num_batched_tokens",
            "block_size",
        ]
    problems.extend(
        f"{key}.{name}: {getattr(pool, name)} is below 1" for name in names if getattr(pool, name) < 1
    )
    if isinstance(pool, SequentialPool) and pool.cores is not None and pool.cores < 1:
        problems.append(f"{key}.cores: {pool.cores} is below 1")


def _check_names(pool: LLMPool | SequentialPool, cluster: Cluster, key: str, problems: list[str]) -> None:
    _check_routing(pool, cluster, key, problems)
    lookups: list[tuple[Registry[Any], str, str]] = []
    if isinstance(pool, LLMPool):
        lookups.append((batching_policies, pool.batching, f"{key}.batching"))
    lookups.extend((stage_kinds, kind, f"{key}.serves") for kind in pool.serves)
    for registry, name, at in lookups:
        try:
            registry.find(name, at)
        except ConfigError as error:
            if str(error) not in problems:
                problems.append(str(error))


def _check_routing(pool: LLMPool | SequentialPool, cluster: Cluster, key: str, problems: list[str]) -> None:
    where = f"{key}.routing" if pool.routing else "cluster.routing"
    try:
        routing_policies.parse(pool.routing or cluster.routing, where)
    except ConfigError as error:
        if str(error) not in problems:
            problems.append(str(error))


def _check_llm_pool(pool: LLMPool, key: str, problems: list[str], sound: bool) -> None:
    """Append what is wrong with the pool; ``sound`` tells whether its figures can be reckoned with."""
    model = pool.model
    devices = pool.tensor_parallel
    if pool.pipeline_parallel > 1:
        problems.append(f"{key}.pipeline_parallel: {pool.pipeline_parallel} is not supported; expected 1")
    if pool.prefix_cache and pool.preemption != "recompute":
        problems.append(
            f"{key}.preemption: {pool.preemption!r} does not go with prefix_cache; expected 'recompute'"
        )
    if pool.prefix_cache and pool.batching == "static":
        problems.append(
            f"{key}.prefix_cache: static batching pads its prompts and reuses none; expected false"
        )
    if model.kind != "decoder":
        problems.append(f"{key}.model: {model.name} is an {model.kind}; an LLM pool needs a decoder")
    if sound and devices >= 1 and model.heads % devices:
        problems.append(
            f"{key}.tensor_parallel: {devices} does not divide the {model.heads} attention heads of {model.name}"
        )
    elif sound and devices >= 1 and model.kv_heads % devices and devices % model.kv_heads:
        problems.append(
            f"{key}.tensor_parallel: {devices} does not fit the {model.kv_heads} KV heads of {model.name}"
        )
    if pool.max_num_batched_tokens < pool.max_num_seqs:
        problems.append(
            f"{key}.max_num_batched_tokens: {pool.max_num_batched_tokens} is below max_num_seqs "
            f"({pool.max_num_seqs}); every running sequence takes a token in each step"
        )
    if not 0.0 < pool.memory_utilization <= 1.0:
        problems.append(f"{key}.memory_utilization: {pool.memory_utilization} is not above 0 and at most 1")
    if pool.kv_blocks is not None and pool.kv_blocks < 1:
        problems.append(f"{key}.kv_blocks: {pool.kv_blocks} is below 1")
    if sound and 0.0 < pool.memory_utilization <= 1.0 and min(devices, pool.block_size) >= 1:
        capacity = kv_capacity(pool)
        if capacity.blocks < 1 and not capacity.given:
            problems.append(
                f"{key}: the weights of {model.name} ({model.precision.weights}) take "
                f"{capacity.weight_bytes / 1e9:.1f} GB on each of {devices} × {pool.hardware.name}, which leaves "
                f"no room for KV in {capacity.usable_bytes / 1e9:.1f} GB; raise tensor_parallel or quantize"
            )


def _pool_of(stage: Stage, cluster: Cluster, problems: list[str]) -> str | None:
    named = stage.options.pool
    if named is not None:
        if named not in cluster.pools:
            problems.append(
                f"{stage.key}.pool: no pool is called {named!r}{did_you_mean(named, cluster.pools)}"
            )
            return None
        if stage.kind not in cluster.pools[named].serves:
            problems.append(f"{stage.key}.pool: {named!r} does not serve {stage.kind!r}")
            return None
        candidates = [named]
    else:
        candidates = [name for name, pool in cluster.pools.items() if stage.kind in pool.serves]
    if not candidates:
        problems.append(f"{stage.key}: no pool of cluster {cluster.name!r} serves {stage.kind!r}")
        return None
    if len(candidates) > 1:
        problems.append(f"{stage.key}.pool: {' and '.join(candidates)} both serve {stage.kind!r}; name one")
        return None
    pool = cluster.pools[candidates[0]]
    if pool.kind != stage.params.client:
        problems.append(
            f"cluster.pools.{candidates[0]}.serves: a pool of kind {pool.kind!r} cannot serve {stage.kind!r}"
        )
        return None
    return candidates[0]


def _check_llm_stages(
    graph: Graph, placement: Mapping[str, str], cluster: Cluster, problems: list[str]
) -> None:
    for stage in graph.stages.values():
        before = stage.options.after
        if stage.kind == "decode" and all(name in graph.stages for name in before):
            if len(before) != 1 or graph.stages[before[0]].kind != "prefill":
                problems.append(
                    f"{stage.key}.after: a decode comes directly after one prefill, and nothing else"
                )
            else:
                _check_pair(stage, before[0], placement, cluster, problems)
        if stage.kind == "prefill":
            decodes = [name for name in graph.successors(stage.name) if graph.stages[name].kind == "decode"]
            others = [name for name in graph.successors(stage.name) if name not in decodes]
            if len(decodes) > 1:
                problems.append(
                    f"{stage.key}: {' and '.join(decodes)} both decode it; one decode per prefill"
                )
            if decodes and others:
                problems.append(
                    f"pipeline.stages.{others[0]}.after: {stage.name!r} is followed by the decode "
                    f"{decodes[0]!r}; put {others[0]!r} after that"
                )


def _check_pair(
    decode: Stage, prefill: str, placement: Mapping[str, str], cluster: Cluster, problems: list[str]
) -> None:
    """A decode on a pool of its own must be able to use the KV that its prefill computed."""
    theirs, ours = placement.get(prefill), placement.get(decode.name)
    if theirs is None or ours is None or theirs == ours:
        return
    first, second = cluster.pools[theirs], cluster.pools[ours]
    if not isinstance(first, LLMPool) or not isinstance(second, LLMPool):
        return
    if first.model.name != second.model.name:
        problems.append(
            f"cluster.pools.{ours}.model: {second.model.name} cannot decode what {first.model.name} on pool "
            f"{theirs!r} has prefilled; expected the same model"
        )
    elif first.model.precision.kv_cache != second.model.precision.kv_cache:
        problems.append(
            f"cluster.pools.{ours}.model.precision.kv_cache: {second.model.precision.kv_cache!r} cannot go on from "
            f"the {first.model.precision.kv_cache!r} KV of pool {theirs!r}; expected the same"
        )
    if second.prefix_cache:
        problems.append(
            f"cluster.pools.{ours}.prefix_cache: a pool that receives its KV looks nothing up; expected false"
        )
    for name, pool in ((theirs, first), (ours, second)):
        if pool.batching == "static":
            problems.append(
                f"cluster.pools.{name}.batching: a gang of 'static' keeps prefill and decode together"
            )


def _check_orphans(graph: Graph, problems: list[str]) -> None:
    if len(graph.stages) == 1:
        return
    problems.extend(
        f"{stage.key}: nothing comes before or after it; connect it with 'after'"
        for stage in graph.stages.values()
        if not stage.options.after and not graph.successors(stage.name)
    )
