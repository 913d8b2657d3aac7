"""Pass 2: does the config describe a system that can run? Finds every problem, each with its key."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hermes_flow.compiler.check_memory import check_memory_pool, check_retrievals
from hermes_flow.compiler.check_routing import check_routing, check_staleness
from hermes_flow.compiler.check_stages import check_stages
from hermes_flow.compiler.placement import Placement, place
from hermes_flow.config.physical_values import check_figures, check_model
from hermes_flow.config.registry import Registry
from hermes_flow.config.schema import AnyPool, BatchedPool, Cluster, LLMPool, MemoryPool, SequentialPool
from hermes_flow.errors import ConfigError
from hermes_flow.pools.batched.check import check_batched_pool, check_hosts
from hermes_flow.pools.llm.batching import batching_policies
from hermes_flow.pools.llm.check import check_llm_pool
from hermes_flow.program.requests import Requests
from hermes_flow.stages import stage_kinds
from hermes_flow.stages.graph import Graph, Stage


def check(graph: Graph, cluster: Cluster, problems: list[str]) -> Placement:
    """Append every problem to ``problems`` (those of parsing, so far); return the pools that serve each stage."""
    whole = not problems
    check_staleness(cluster, problems)
    for name, pool in cluster.pools.items():
        key = f"cluster.pools.{name}"
        _check_counts(pool, key, problems)
        _check_names(pool, cluster, key, problems)
        figures: list[str] = []
        check_figures(pool.hardware, f"{key}.hardware", figures)
        if isinstance(pool, LLMPool):
            check_model(pool.model, f"{key}.model", figures)
            if pool.speculative.draft is not None:
                check_model(pool.speculative.draft, f"{key}.speculative.draft", figures)
            check_llm_pool(pool, key, problems, sound=not figures)
        elif isinstance(pool, BatchedPool):
            if pool.model is not None:
                check_model(pool.model, f"{key}.model", figures)
            check_batched_pool(pool, key, problems, sound=not figures)
        elif isinstance(pool, MemoryPool):
            check_memory_pool(name, pool, cluster, problems)
        elif pool.cores is None and pool.hardware.cores is None:
            problems.append(f"{key}.cores: null, and {pool.hardware.name} has no figure for it either")
        problems += figures
    check_hosts(cluster, problems)
    placement = place(graph, cluster, problems)
    _check_llm_stages(graph, placement, cluster, problems)
    check_stages(graph, placement, cluster, problems)
    check_retrievals(graph, placement, cluster, problems)
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


def _check_counts(pool: AnyPool, key: str, problems: list[str]) -> None:
    names = ["count"]
    if isinstance(pool, LLMPool):
        names += [
            "tensor_parallel",
            "pipeline_parallel",
            "data_parallel",
            "max_num_seqs",
            "max_num_batched_tokens",
            "block_size",
        ]
    elif isinstance(pool, BatchedPool):
        names += ["tensor_parallel", "max_batch"]
    problems.extend(
        f"{key}.{name}: {getattr(pool, name)} is below 1" for name in names if getattr(pool, name) < 1
    )
    if isinstance(pool, SequentialPool | BatchedPool) and pool.cores is not None and pool.cores < 1:
        problems.append(f"{key}.cores: {pool.cores} is below 1")


def _check_names(pool: AnyPool, cluster: Cluster, key: str, problems: list[str]) -> None:
    check_routing(pool, cluster, key, problems)
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


def _check_llm_stages(graph: Graph, placement: Placement, cluster: Cluster, problems: list[str]) -> None:
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
                    f"{graph.stages[others[0]].key}.after: {stage.name!r} is followed by the decode "
                    f"{decodes[0]!r}; put {others[0]!r} after that"
                )


def _check_pair(
    decode: Stage, prefill: str, placement: Placement, cluster: Cluster, problems: list[str]
) -> None:
    """A decode on a pool of its own must be able to use the KV that its prefill computed."""
    before, after = placement.get(prefill, {}), placement.get(decode.name, {})
    for model, ours in after.items():
        theirs = before.get(model)
        if theirs is None and before:
            problems.append(
                f"{decode.key}.pool: {ours!r} decodes what {' and '.join(before.values())} have prefilled; "
                "expected a prefill and a decode pool for each model"
            )
        elif theirs is not None and theirs != ours:
            _check_pools_of_pair(theirs, ours, cluster, problems)


def _check_pools_of_pair(theirs: str, ours: str, cluster: Cluster, problems: list[str]) -> None:
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
    sizes = Counter(graph.part_of(name) for name in graph.stages)
    problems.extend(
        f"{stage.key}: nothing comes before or after it; connect it with 'after'"
        for stage in graph.stages.values()
        if sizes[graph.part_of(stage.name)] > 1
        and not stage.options.after
        and not graph.successors(stage.name)
    )
