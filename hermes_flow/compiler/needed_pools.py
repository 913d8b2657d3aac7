"""Leaves out pools marked ``if_needed`` whose stages are served by other pools of the cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hermes_flow.config.schema import Cluster
from hermes_flow.stages.graph import Graph, Stage


def without_unneeded(graph: Graph, cluster: Cluster) -> tuple[Cluster, list[str]]:
    """Return the cluster without unused pools marked ``if_needed``, and a warning for each.

    The others with ``if_needed`` come last. Clients fill the nodes of the network in the order of the pools, so what
    a pipeline brings does not move the clients of the layout.
    """
    needed: set[str] = set()
    for stage in graph.stages.values():
        if stage.options.pool is not None:
            needed.add(stage.options.pool)
            continue
        serving = [name for name, pool in cluster.pools.items() if stage.kind in pool.serves]
        needed.update(first_choice(stage, serving, cluster))
    standing = {name: pool for name, pool in cluster.pools.items() if not pool.if_needed}
    called = {name: pool for name, pool in cluster.pools.items() if pool.if_needed and name in needed}
    warnings = [
        f"pool {name} is left out: other pools of the cluster serve all its stages"
        for name in cluster.pools
        if name not in standing and name not in called
    ]
    return replace(cluster, pools=standing | called), warnings


def first_choice(stage: Stage, candidates: Sequence[str], cluster: Cluster) -> list[str]:
    """Return the candidates, without those marked ``if_needed`` if another one can serve the stage."""
    standing = [name for name in candidates if not cluster.pools[name].if_needed]
    model = stage.options.model
    if stage.options.pool is None and any(
        model in (None, cluster.pools[name].model_name) for name in standing
    ):
        return standing
    return list(candidates)
