"""Fills what an LLM pool leaves open: null is the model or hardware chosen for the whole configuration."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

_CHOSEN = ("model", "hardware")


def fill_open_choices(plain: Mapping[str, Any]) -> None:
    """Give every LLM pool of ``plain`` (a whole configuration as plain mappings) its model and its hardware.

    Null takes the top-level choice. A mapping without a name changes single figures of that choice, as
    ``cluster.pools.llm.hardware.bandwidth_gb_s=900`` does. A mapping with a name is an entry of its own.
    """
    cluster = plain.get("cluster")
    pools = cluster.get("pools") if isinstance(cluster, Mapping) else None
    for pool in pools.values() if isinstance(pools, Mapping) else ():
        if not isinstance(pool, MutableMapping) or pool.get("kind") != "llm":
            continue
        for group in _CHOSEN:
            given = pool.get(group)
            if given is None:
                pool[group] = plain.get(group)
            elif isinstance(given, Mapping) and "name" not in given:
                pool[group] = _changed(plain.get(group), given)


def _changed(whole: Any, figures: Any) -> Any:
    """Return ``whole`` with the entries of ``figures`` in place of its own, level by level."""
    if not isinstance(whole, Mapping) or not isinstance(figures, Mapping):
        return figures
    return {**whole, **{name: _changed(whole.get(name), value) for name, value in figures.items()}}
