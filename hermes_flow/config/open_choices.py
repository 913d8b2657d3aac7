"""Fills the keys that pools leave open: model, hardware, engine, and what the engine has for them."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import fields, replace
from typing import Any

from hermes_flow.config.engine import ENGINE_DEFAULTS, Engine
from hermes_flow.config.overheads import changed, takes_overheads, with_overheads
from hermes_flow.config.pools import pool_kinds
from hermes_flow.config.schema import Config
from hermes_flow.config.server_limits import limits_by_gpu
from hermes_flow.errors import ConfigError


def fill_open_choices(plain: MutableMapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Fill the pools of ``plain`` (a whole configuration as plain mappings) where they are null.

    The schema of a kind of pool lists in ``left_open`` the groups that it may leave open. Null is then the top-level
    choice. A mapping without a name changes single figures of that choice, as
    ``cluster.pools.llm.hardware.bandwidth_gb_s=900`` does. A mapping with a name is an entry of its own. A hardware
    gets the overheads of the pool's engine, or of the top-level one where the pool has none.

    Returns the keys of each pool that took the default of its engine. Raises ConfigError where an engine lacks the
    overheads that the hardware of a pool names.
    """
    taken: dict[str, tuple[str, ...]] = {}
    cluster = plain.get("cluster")
    pools = cluster.get("pools") if isinstance(cluster, Mapping) else None
    for name, pool in pools.items() if isinstance(pools, Mapping) else ():
        if not isinstance(pool, MutableMapping):
            continue
        groups, hardware = left_open(pool.get("kind")), pool.get("hardware")
        speculative = pool.get("speculative")
        if isinstance(speculative, Mapping):
            _refuse_name(speculative.get("draft"), "model", f"cluster.pools.{name}.speculative.draft", "+")
        for group in groups:
            given = pool.get(group)
            _refuse_name(given, group, f"cluster.pools.{name}.{group}")
            if given is None and group in plain:
                pool[group] = plain[group]
            elif isinstance(given, Mapping) and "name" not in given:
                pool[group] = changed(plain.get(group), given)
        if "engine" in groups:
            taken[str(name)] = tuple(key for key in ENGINE_DEFAULTS if pool.get(key) is None)
            for key in taken[str(name)]:
                pool[key] = _default(pool.get("engine"), key)
            _fill_limits(pool, taken[str(name)], f"cluster.pools.{name}")
            taken[str(name)] = tuple(key for key in taken[str(name)] if pool[key] is not None)
        _fill_overheads(plain, pool, f"cluster.pools.{name}", hardware)
    if "hardware" in plain:  # no pool need take it
        plain["hardware"] = with_overheads(plain["hardware"], plain.get("engine"), key=None)
    return taken


def _refuse_name(given: Any, group: str, key: str, sign: str = "") -> None:
    """Say how an entry of a group is chosen for one pool, where its name alone stands in its place."""
    if isinstance(given, str):
        raise ConfigError(key, f"{given!r} is a name; expected {sign}{group}@{key}={given}")


def with_origins(config: Config, taken: Mapping[str, tuple[str, ...]]) -> Config:
    """Return the configuration with a note of the keys that each pool took from its engine."""
    pools = {
        name: replace(pool, from_engine=taken[name])  # type: ignore[type-var]
        if any(field.name == "from_engine" for field in fields(pool))  # type: ignore[arg-type]
        else pool
        for name, pool in config.cluster.pools.items()
    }
    return replace(config, cluster=replace(config.cluster, pools=pools))


def left_open(kind: Any) -> tuple[str, ...]:
    """Return the groups that a kind of pool may leave open; an unknown kind is named when the pool is converted."""
    groups: tuple[str, ...] = getattr(pool_kinds.known_schema(kind), "left_open", ())
    return groups


def _fill_overheads(plain: Mapping[str, Any], pool: MutableMapping[str, Any], key: str, given: Any) -> None:
    """Fill the overheads on a pool's hardware, of which the user gave ``given``; ``key`` is that of the pool."""
    own = isinstance(given, Mapping) and ("name" in given or "overheads_of" in given)
    engine = pool.get("engine") if "engine" in left_open(pool.get("kind")) else plain.get("engine")
    place = f"{key}.hardware" if own else "hardware"
    if takes_overheads(pool.get("hardware")):
        pool["hardware"] = with_overheads(pool["hardware"], engine, place)


def _fill_limits(pool: MutableMapping[str, Any], taken: Sequence[str], key: str) -> None:
    """Let limits that a pool took from its engine be those of the server on its GPU, where the engine says so."""
    engine = pool.get("engine")
    if isinstance(engine, Mapping) and engine.get("server_limits") == "by_gpu":
        limits = limits_by_gpu(pool, key)
        pool.update({name: limit for name, limit in limits.items() if name in taken})


def _default(engine: Any, key: str) -> Any:
    """Return an engine's default; a configuration that was saved before there were engines has vLLM's."""
    value = engine.get(key) if isinstance(engine, Mapping) else None
    return getattr(Engine(), key) if value is None else value
