"""Checks that the pools can serve branches, rewards and guards as the pipeline asks for them."""

from __future__ import annotations

from hermes_flow.compiler.placement import Placement
from hermes_flow.config.schema import Cluster
from hermes_flow.pools.kind import kind_of
from hermes_flow.stages.graph import Graph, Stage


def check_stages(graph: Graph, placement: Placement, cluster: Cluster, problems: list[str]) -> None:
    """Append a problem for branches, rewards and guards that cannot be served as the pipeline asks.

    Branches must share their prompt, rewards have an answer to score, guards be able to read one as it is written,
    and routes by load a pool whose load they see.
    """
    if graph.load_routes:
        from hermes_flow.compiler.load_routes import check_load_routes

        check_load_routes(graph, placement, problems)
    for stage in graph.stages.values():
        for name in placement.get(stage.name, {}).values():
            kind_of(cluster.pools[name]).check_served(name, cluster.pools[name], stage, problems)
        if stage.role == "answer" and stage.options.branches > 1:
            _check_shared_prompt(stage, graph, placement, cluster, problems)
        if stage.role == "score":
            _check_reward(stage, graph, problems)
        watched = graph.watched(stage)
        if watched is not None:
            _check_watched(stage, watched, placement, cluster, problems)


def _check_shared_prompt(
    decode: Stage, graph: Graph, placement: Placement, cluster: Cluster, problems: list[str]
) -> None:
    """Branches share the prompt of the prefill before them, on every pool that may serve it."""
    for name in decode.options.after:
        if name not in graph.stages or graph.stages[name].role != "prompt":
            continue
        for pool_name in placement.get(name, {}).values():
            pool = cluster.pools[pool_name]
            kind_of(pool).check_branches(pool_name, pool, decode, problems)


def _check_watched(
    guard: Stage, decode: Stage, placement: Placement, cluster: Cluster, problems: list[str]
) -> None:
    """A guard reads the answer on every pool that may write it."""
    for name in placement.get(decode.name, {}).values():
        pool = cluster.pools[name]
        kind_of(pool).check_watched(name, pool, guard, problems)


def _check_reward(reward: Stage, graph: Graph, problems: list[str]) -> None:
    after = reward.options.after
    if any(name not in graph.stages for name in after):
        return  # reported by parsing
    if len(after) != 1 or graph.stages[after[0]].role != "answer":
        problems.append(f"{reward.key}.after: a reward comes directly after the one decode that it scores")
    elif graph.stages[after[0]].options.repeat != reward.options.repeat:
        problems.append(f"{reward.key}.repeat: expected the same loop as the decode {after[0]!r}")
