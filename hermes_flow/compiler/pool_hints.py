"""Suggests what to write if no pool of the cluster serves a stage or holds its model."""

from __future__ import annotations

from hermes_flow.config.folders import config_folder
from hermes_flow.config.schema import Cluster
from hermes_flow.pools.kind import kind_of
from hermes_flow.stages.graph import Stage

# The entry of the group pool that serves each kind of stage, and the kinds that one pool usually serves together.
_ENTRIES = {
    "llm": ("prefill", "decode"),
    "host": ("tokenize", "pad", "word_filter", "detokenize"),
    "tools": ("tool",),
    "embed": ("embed",),
    "retrieval": ("vector_search",),
    "rerank": ("rerank",),
    "guard": ("guard",),
    "reward": ("reward",),
    "store": ("kv_retrieval",),
}


def how_to_serve(stage: Stage, cluster: Cluster) -> str:
    """Return a clause with overrides that give the stage a pool; it is empty if none is known."""
    entry = _entry_for(stage)
    together = _ENTRIES.get(entry or "", ())
    fitting = [name for name, pool in cluster.pools.items() if kind_of(pool).work == stage.params.client]
    related = [name for name in fitting if set(together) & set(cluster.pools[name].serves)]
    if related or (entry is None and fitting):
        name = (related or fitting)[0]
        serves = ",".join([*cluster.pools[name].serves, stage.kind])
        return f"; cluster.pools.{name}.serves=[{serves}] lets {name!r} serve it"
    return "" if entry is None else f"; {_added(entry, stage, cluster)} adds one that does"


def how_to_hold(stage: Stage, model: str, cluster: Cluster) -> str:
    """Return a clause with overrides that add a pool of that model; it is empty if the catalog lacks it."""
    entry = _entry_for(stage)
    if entry is None or not (config_folder() / "model" / f"{model}.yaml").is_file():
        return ""
    return f" ({_added(entry, stage, cluster)} adds a pool that does)"


def _entry_for(stage: Stage) -> str | None:
    if stage.kind == "rerank" and stage.options.model is None:
        return "retrieval"  # by distances, without a model
    return next((entry for entry, kinds in _ENTRIES.items() if stage.kind in kinds), None)


def _added(entry: str, stage: Stage, cluster: Cluster) -> str:
    """Return the overrides that add a pool of the group's ``entry`` under a name that is free."""
    name = entry
    while name in cluster.pools:
        name = f"{name}_2"
    model = stage.options.model
    chosen = "" if model is None else f" model@cluster.pools.{name}.model={model}"
    return f"+pool@cluster.pools.{name}={entry}{chosen}"
