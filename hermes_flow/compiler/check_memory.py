"""Can KV be retrieved as the config asks? The tiers of memory pools, and the prefills that go on from contexts."""

from __future__ import annotations

from hermes_flow.compiler.placement import Placement
from hermes_flow.config.physical_values import check_figures
from hermes_flow.config.schema import Cluster, LLMPool, MemoryPool
from hermes_flow.errors import did_you_mean
from hermes_flow.stages.graph import Graph, Stage
from hermes_flow.stages.kv_retrieval import KVRetrieval


def check_memory_pool(name: str, pool: MemoryPool, cluster: Cluster, problems: list[str]) -> None:
    """Append what is wrong with a memory pool: no tiers, impossible figures, a neighbour that cannot be."""
    key = f"cluster.pools.{name}"
    if not pool.tiers:
        problems.append(f"{key}.tiers: empty; a memory pool needs at least one tier")
    check_figures(pool.tiers, f"{key}.tiers", problems)
    if pool.usd_per_hour is not None:
        check_figures(pool.usd_per_hour, f"{key}.usd_per_hour", problems)
    if pool.host_link_shared_by < 1:
        problems.append(f"{key}.host_link_shared_by: {pool.host_link_shared_by}; expected 1 or more clients")
    if pool.beside is None:
        if pool.host_link:
            problems.append(
                f"{key}.host_link: true, but of no devices; expected the name of an LLM pool in beside"
            )
        return
    other = cluster.pools.get(pool.beside)
    if other is None:
        others = [known for known in cluster.pools if known != name]
        problems.append(f"{key}.beside: no pool is called {pool.beside!r}{did_you_mean(pool.beside, others)}")
    elif not isinstance(other, LLMPool):
        problems.append(
            f"{key}.beside: {pool.beside!r} is of kind {other.kind!r}; expected a pool of kind 'llm'"
        )
    elif other.count != pool.count:
        problems.append(
            f"{key}.count: {pool.count} stores beside the {other.count} clients of {pool.beside!r}; expected as many"
        )
    elif pool.host_link and other.hardware.host_link_gb_s is None:
        problems.append(
            f"cluster.pools.{pool.beside}.hardware.host_link_gb_s: null; {key}.host_link needs it of "
            f"{other.hardware.name}"
        )


def check_retrievals(graph: Graph, placement: Placement, cluster: Cluster, problems: list[str]) -> None:
    """Append a problem for each retrieval that no prefill can use, or whose tiers and pools do not fit."""
    for stage in graph.stages.values():
        if not isinstance(stage.params, KVRetrieval):
            continue
        for pool_name in placement.get(stage.name, {}).values():
            pool = cluster.pools[pool_name]
            if isinstance(pool, MemoryPool):
                _check_tiers(stage, stage.params, pool_name, pool, problems)
        prefills = _next_prefills(graph, stage)
        if not prefills:
            problems.append(f"{stage.key}: no prefill comes after it, and nothing else uses KV")
        problems.extend(
            f"{stage.key}.overlap: {prefill.name!r} waits for {' and '.join(map(repr, prefill.options.after))}; "
            f"expected {stage.name!r} alone to come directly before it"
            for prefill in prefills
            if stage.params.overlap and prefill.options.after != (stage.name,)
        )
        for prefill in prefills:
            for pool_name in placement.get(prefill.name, {}).values():
                _check_prefill(stage, prefill, pool_name, cluster, problems)


def _check_tiers(stage: Stage, params: KVRetrieval, name: str, pool: MemoryPool, problems: list[str]) -> None:
    problems.extend(
        f"{stage.key}.hits.{tier}: no tier of pool {name!r} is called {tier!r}{did_you_mean(tier, pool.tiers)}"
        for tier in params.hits or {}
        if tier not in pool.tiers
    )
    if params.keeps and not pool.write_back:
        problems.append(
            f"cluster.pools.{name}.write_back: false, but {stage.name!r} finds only what the run has kept; expected "
            "true"
        )


def _check_prefill(
    stage: Stage, prefill: Stage, pool_name: str, cluster: Cluster, problems: list[str]
) -> None:
    pool = cluster.pools[pool_name]
    if not isinstance(pool, LLMPool):
        return
    found = []
    if pool.prefix_cache:
        found.append(
            f"cluster.pools.{pool_name}.prefix_cache: true, but its prompts begin with the context that "
            f"{stage.name!r} retrieves; expected false"
        )
    if pool.batching == "static":
        found.append(
            f"cluster.pools.{pool_name}.batching: a gang of 'static' pads its prompts and computes all of them, "
            f"whatever {stage.name!r} retrieves; expected another policy"
        )
    if prefill.options.continues is not None or stage.options.repeat is not None:
        found.append(
            f"{prefill.key}: it may go on from an earlier answer, and {stage.name!r} retrieves what a prompt begins "
            "with; retrieve before the first prefill of the conversation, and before any loop"
        )
    problems.extend(problem for problem in found if problem not in problems)


def _next_prefills(graph: Graph, stage: Stage) -> list[Stage]:
    """Return the prefills after a stage without another prefill between."""
    found: dict[str, Stage] = {}
    left = [stage.name]
    while left:
        for name in graph.successors(left.pop()):
            after = graph.stages[name]
            if after.kind == "prefill":
                found[name] = after
            else:
                left.append(name)
    return list(found.values())
