"""Checks that the prefills after a KV retrieval can use the contexts that it finds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hermes_flow.compiler.check_routing import Routings, check_routing
from hermes_flow.compiler.placement import Placement
from hermes_flow.config.schema import Cluster
from hermes_flow.errors import ConfigError
from hermes_flow.pools.kind import kind_of
from hermes_flow.routing import needs_of
from hermes_flow.stages.graph import Graph, Stage

if TYPE_CHECKING:
    from hermes_flow.stages.kv_retrieval import KVRetrieval


def check_retrievals(
    graph: Graph, placement: Placement, cluster: Cluster, routings: Routings, problems: list[str]
) -> None:
    """Append a problem for each retrieval whose contexts no prefill can use."""
    if all(stage.kind != "kv_retrieval" for stage in graph.stages.values()):
        return
    from hermes_flow.stages.kv_retrieval import KVRetrieval

    loaded_by: dict[str, set[str]] = {}  # memory pool → pools whose clients load what it finds
    for stage in graph.stages.values():
        if not isinstance(stage.params, KVRetrieval):
            continue
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
                for store in placement.get(stage.name, {}).values():
                    _check_known(stage, stage.params, store, cluster, routings, problems)
                    loaded_by.setdefault(store, set()).add(pool_name)
    for store, loading in loaded_by.items():
        _check_store_routing(store, loading, cluster, routings, problems)


def _check_store_routing(
    name: str, loading: set[str], cluster: Cluster, routings: Routings, problems: list[str]
) -> None:
    """Where all contexts are loaded by the clients next to their stores, the router of those decides alone."""
    pool, key = cluster.pools[name], f"cluster.pools.{name}"
    beside = kind_of(pool).beside(pool)
    if beside is None:
        return
    if loading != {beside}:
        check_routing(name, cluster, routings, problems)
    elif pool.routing is not None:
        problems.append(
            f"{key}.routing: the router of pool {beside!r} decides which store is asked, because the stores are "
            f"beside its clients; expected null, or a policy in cluster.pools.{beside}.routing"
        )


def _check_known(
    stage: Stage,
    params: KVRetrieval,
    store: str,
    cluster: Cluster,
    routings: Routings,
    problems: list[str],
) -> None:
    """Append a problem where a router goes by what stores hold, and a retrieval draws what it finds."""
    pool = cluster.pools[store]
    router = kind_of(pool).beside(pool) or store
    if params.hits is None or router not in cluster.pools or cluster.pools[router].count == 1:
        return
    try:
        needs = needs_of(routings.of(router))
    except ConfigError:  # reported as such
        return
    problem = (
        f"{stage.key}.hits: what it finds is drawn, and {routings.key(router)} goes by what stores hold; expected "
        "contexts or per_session"
    )
    if "contexts" in needs and problem not in problems:
        problems.append(problem)


def _check_prefill(
    stage: Stage, prefill: Stage, pool_name: str, cluster: Cluster, problems: list[str]
) -> None:
    pool, found = cluster.pools[pool_name], list[str]()
    kind_of(pool).check_context(pool_name, pool, stage, prefill, found)
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
            if after.role == "prompt":
                found[name] = after
            else:
                left.append(name)
    return list(found.values())
