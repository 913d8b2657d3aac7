"""Checks that a memory pool can exist, and that it has the tiers that retrievals name."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from hermes_flow.config.schema import Cluster
from hermes_flow.errors import did_you_mean
from hermes_flow.pools.kind import kind_of
from hermes_flow.pools.memory.schema import MemoryPool, RemoteTier
from hermes_flow.program.kv_store import REMOTE
from hermes_flow.stages.graph import Stage
from hermes_flow.stages.kv_retrieval import KVRetrieval


def check_memory_pool(name: str, pool: MemoryPool, cluster: Cluster, problems: list[str]) -> None:
    """Append the problems of a memory pool: missing tiers, impossible numbers, an impossible neighbour."""
    key = f"cluster.pools.{name}"
    if not pool.tiers:
        problems.append(f"{key}.tiers: empty; a memory pool needs at least one tier")
    if pool.remote is not None:
        _check_remote(key, pool, pool.remote, problems)
    if not pool.contention:
        _check_alone(key, pool, problems)
    if pool.beside is None:
        if pool.host_link:
            problems.append(
                f"{key}.host_link: true, but no devices are named; expected the name of an LLM pool in beside"
            )
        return
    other = cluster.pools.get(pool.beside)
    if other is None:
        others = [known for known in cluster.pools if known != name]
        problems.append(f"{key}.beside: no pool is called {pool.beside!r}{did_you_mean(pool.beside, others)}")
    elif other.hardware is None or kind_of(other).kv_shape(other) is None:
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


def _check_remote(key: str, pool: MemoryPool, remote: RemoteTier, problems: list[str]) -> None:
    if REMOTE in pool.tiers:
        problems.append(
            f"{key}.tiers.{REMOTE}: reads of other stores are reported under this name; expected another name"
        )
    tier = pool.tiers.get(remote.tier)
    if tier is None:
        problems.append(
            f"{key}.remote.tier: no tier is called {remote.tier!r}{did_you_mean(remote.tier, pool.tiers)}"
        )
    elif tier.shared_by >= pool.count:
        problems.append(
            f"{key}.remote: all clients share one {remote.tier!r} (count {pool.count}, shared_by {tier.shared_by}), "
            "so that there are no other stores; expected null, or more clients"
        )
    elif tier.in_host:
        problems.append(f"{key}.remote.tier: {remote.tier!r} is in_host; expected a tier with in_host: false")


def _check_alone(key: str, pool: MemoryPool, problems: list[str]) -> None:
    shares = [f"tiers.{name}.in_host" for name, tier in pool.tiers.items() if tier.in_host]
    shares += ["host_link"] if pool.host_link else []
    shares += ["write_back"] if pool.write_back else []
    problems.extend(
        f"{key}.{name}: true, but without contention only reads are modelled, of memories that nothing else uses; "
        f"expected false, or {key}.contention: true"
        for name in shares
    )


def check_room(name: str, pool: MemoryPool, cluster: Cluster, problems: list[str]) -> None:
    """Append a problem if tiers within a host's memory do not fit into it."""
    root = pool.host or name
    host = cluster.pools.get(root)
    if host is None or host.hardware is None:
        return
    if host.hardware.kind != "cpu":  # reported as such
        return
    kept = math.fsum(tier.capacity_gb for tier in pool.tiers.values() if tier.in_host)
    kept *= -(-pool.count // host.count)
    if kept > host.hardware.memory_gb:
        problems.append(
            f"cluster.pools.{name}.tiers: those in_host would take {kept:,g} GB of a machine of {root!r}, and "
            f"{host.hardware.name} has {host.hardware.memory_gb:,g} GB"
        )


def check_tiers(name: str, pool: MemoryPool, stage: Stage, problems: list[str]) -> None:
    """Append problems for missing tiers that a retrieval names, and for contexts that no store keeps."""
    params = stage.params
    assert isinstance(params, KVRetrieval)
    problems.extend(
        f"{stage.key}.hits.{tier}: no tier of pool {name!r} is called {tier!r}{did_you_mean(tier, pool.tiers)}"
        for tier in params.hits or {}
        if tier not in pool.tiers
    )
    if pool.remote is not None and params.hits is not None:
        problems.append(
            f"cluster.pools.{name}.remote: given, but {stage.key}.hits says where contexts are found; expected null, "
            f"or {stage.key}.contexts"
        )
    if pool.begins_with != "nothing" and params.contexts is None:
        problems.append(
            f"cluster.pools.{name}.begins_with: {pool.begins_with}, but requests share no contexts of "
            f"{stage.name!r}; expected nothing, or {stage.key}.contexts"
        )
    if params.keeps and not pool.write_back and pool.begins_with == "nothing":
        problems.append(
            f"cluster.pools.{name}.write_back: false, but {stage.name!r} finds only what the run has kept; expected "
            "true"
        )


def problems_at_sites(pool: MemoryPool, pools: Mapping[str, Any]) -> Iterator[str]:
    """Yield the settings of stores at several sites that would let memories or contents reach from one to another.

    Each problem begins with the setting, without the key of the pool.
    """
    counts = pool.site if isinstance(pool.site, dict) else {}
    if len(counts) < 2:
        return
    if pool.remote is not None:
        yield "remote: stores of other sites are not read; expected null with cluster.sites"
    if pool.begins_with == "spread":
        yield "begins_with: spread, but a request finds only what is at its site; expected most_asked or nothing"
    shared = {f"tiers.{name}.shared_by": tier.shared_by for name, tier in pool.tiers.items()}
    for key, clients in (shared | {"host_link_shared_by": pool.host_link_shared_by}).items():
        if any(count % clients for count in counts.values()):
            sizes = ", ".join(map(str, counts.values()))
            yield f"{key}: {clients}, but {sizes} stores stand at the sites; expected a divisor of each"
    other = None if pool.beside is None else getattr(pools.get(pool.beside), "site", None)
    if other is not None and list(other.items()) != list(counts.items()):
        yield f"site: {counts}, beside clients at {other}; expected the same"
