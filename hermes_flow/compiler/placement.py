"""Chooses the pool of each stage, for all requests or for each model that requests ask for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from hermes_flow.compiler.needed_pools import first_choice
from hermes_flow.compiler.pool_hints import how_to_hold, how_to_serve
from hermes_flow.compiler.shared_routers import RouterPools
from hermes_flow.config.schema import Cluster
from hermes_flow.errors import ConfigError, did_you_mean
from hermes_flow.pools.kind import kind_of
from hermes_flow.program.requests import Requests
from hermes_flow.stages.graph import Graph, Stage

Placement: TypeAlias = Mapping[str, Mapping[str, str]]  # stage → model ("": any) → pool


def place(
    graph: Graph, cluster: Cluster, problems: list[str]
) -> tuple[dict[str, dict[str, str]], dict[str, tuple[str, ...]]]:
    """Return the pools of every stage that has any, and the pools that share a router.

    Stages without a pool, or with too many, are problems. Several LLM pools may serve a stage: a request goes to
    those that hold the model it asks for. Pools of one model share a router, and the first of them stands for all.
    """
    placement = {}
    sharing = RouterPools(cluster)
    for stage in graph.stages.values():
        pools = {}
        for model, names in _pools_of(stage, cluster, problems).items():
            try:
                pools[model] = sharing.place(stage.key, stage.kind, names)
            except ConfigError as error:
                if str(error) not in problems:
                    problems.append(str(error))
        if pools:
            placement[stage.name] = pools
    return placement, sharing.routers()


def model_masks(
    requests: Requests, graph: Graph, placement: Placement, key: str, problems: list[str]
) -> dict[str, NDArray[np.bool_]]:
    """Return the requests for each model, for stages with a choice; models that no pool holds are problems.

    ``key`` is what in the config says which models are asked for.
    """
    choosing = {name: pools for name, pools in placement.items() if "" not in pools}
    if not choosing:
        return {}
    if requests.model is None:
        problems.extend(
            f"{graph.stages[name].key}.pool: {' and '.join(pools.values())} both serve {graph.stages[name].kind!r}; "
            "name one, or let requests ask for a model (workload.models, or a column 'model' in the trace)"
            for name, pools in choosing.items()
        )
        return {}
    masks = {name: requests.model == index for index, name in enumerate(requests.models)}
    for name, pools in choosing.items():
        problems.extend(
            f"{key}: {int(mask.sum()):,} requests ask for model {model!r}, which no pool that serves stage {name!r} "
            f"holds{did_you_mean(model, pools)}"
            for model, mask in masks.items()
            if model not in pools and mask.any()
        )
    nobody = np.zeros(len(requests), dtype=np.bool_)
    held = {model for pools in choosing.values() for model in pools}
    return dict.fromkeys(held, nobody) | masks


def unheeded_models(requests: Requests, placement: Placement) -> list[str]:
    """Return a warning if requests ask for models but no stage has a choice of models."""
    if requests.model is None or any("" not in pools for pools in placement.values()):
        return []
    names = ", ".join(requests.models)
    return [f"requests ask for models ({names}), but no stage can choose between models: this has no effect"]


def _pools_of(stage: Stage, cluster: Cluster, problems: list[str]) -> dict[str, list[str]]:
    """Return the stage's pools by model ("": any), empty where there is a problem."""
    named, model = stage.options.pool, stage.options.model
    if named is not None:
        if named not in cluster.pools:
            problems.append(
                f"{stage.key}.pool: no pool is called {named!r}{did_you_mean(named, cluster.pools)}"
            )
            return {}
        if stage.kind not in cluster.pools[named].serves:
            problems.append(f"{stage.key}.pool: {named!r} does not serve {stage.kind!r}")
            return {}
        candidates = [named]
    else:
        candidates = [name for name, pool in cluster.pools.items() if stage.kind in pool.serves]
    if not candidates:
        hint = how_to_serve(stage, cluster)
        problems.append(f"{stage.key}: no pool of cluster {cluster.name!r} serves {stage.kind!r}{hint}")
        return {}
    candidates = first_choice(stage, candidates, cluster)
    models = {name: cluster.pools[name].model_name for name in candidates}
    if model is not None:
        candidates = [name for name in candidates if models[name] == model]
        if not candidates:
            held = [held for held in models.values() if held is not None]
            problems.append(
                f"{stage.key}.model: no pool that serves {stage.kind!r} holds {model!r}"
                f"{did_you_mean(model, held)}{how_to_hold(stage, model, cluster)}"
            )
            return {}
    elif stage.params.client == "batched" and None in models.values():
        candidates = [name for name in candidates if models[name] is None]
    wrong = [name for name in candidates if not kind_of(cluster.pools[name]).can_serve(stage)]
    problems.extend(
        f"cluster.pools.{name}.serves: a pool of kind {cluster.pools[name].kind!r} cannot serve {stage.kind!r}"
        for name in wrong
    )
    if wrong:
        return {}
    by_model: dict[str, list[str]] = {}
    for name in candidates:
        by_model.setdefault(str(models[name]), []).append(name)
    mixable = all(kind_of(cluster.pools[name]).shares_router for name in candidates)
    if len(candidates) > 1 and not mixable and (len(by_model) < len(candidates) or "None" in by_model):
        problems.append(f"{stage.key}.pool: {' and '.join(candidates)} both serve {stage.kind!r}; name one")
        return {}
    return {"": candidates} if len(by_model) == 1 else by_model
