"""Can one client of a batched pool be? Its encoder, its cores, and the machine it shares with others."""

from __future__ import annotations

import math

from hermes_flow.config.retrieval import RetrievalEfficiency
from hermes_flow.config.schema import AnyPool, BatchedPool, Cluster, LLMPool, MemoryPool, Model
from hermes_flow.cost.shape import weight_bytes
from hermes_flow.errors import did_you_mean
from hermes_flow.pools.llm.check import check_heads


def check_batched_pool(pool: BatchedPool, key: str, problems: list[str], sound: bool) -> None:
    """Append what is wrong with the pool; ``sound`` tells whether its figures can be reckoned with."""
    hardware = pool.hardware
    if not 0.0 <= pool.wait_ms < math.inf:
        problems.append(f"{key}.wait_ms: {pool.wait_ms:g} is not valid; expected a finite number, 0 or more")
    if pool.model is not None:
        _check_encoder(pool, pool.model, key, problems, sound)
    elif "embed" in pool.serves:
        problems.append(f"{key}.model: null; a pool that embeds needs an encoder")
    if hardware.kind != "cpu":
        problems.extend(
            f"{key}.{name}: {value!r}; {hardware.name} is no CPU, expected null"
            for name, value in (("cores", pool.cores), ("host", pool.host))
            if value is not None
        )
    elif pool.tensor_parallel > 1:
        problems.append(
            f"{key}.tensor_parallel: {pool.tensor_parallel}; {hardware.name} is a CPU, expected 1"
        )
    elif pool.cores is None and hardware.cores is None:
        problems.append(f"{key}.cores: null, and {hardware.name} has no figure for it either")
    elif pool.cores is not None and hardware.cores is not None and pool.cores > hardware.cores:
        problems.append(f"{key}.cores: {pool.cores} is above the {hardware.cores} cores of {hardware.name}")
    if hardware.retrieval is not None:
        _check_retrieval(hardware.retrieval, f"{key}.hardware.retrieval", problems)


def check_hosts(cluster: Cluster, problems: list[str]) -> None:
    """Append what is wrong with the machines that pools share: their names, their hardware, their cores."""
    whole = len(problems)
    for name, pool in cluster.pools.items():
        if not isinstance(pool, LLMPool) and pool.host is not None:
            _check_host(name, pool.host, pool, cluster, problems)
    if len(problems) > whole:
        return
    for root, host in cluster.pools.items():
        on_it = [
            (name, pool)
            for name, pool in cluster.pools.items()
            if isinstance(pool, BatchedPool) and not pool.devices and root in (name, pool.host)
        ]
        _check_cores(root, host, on_it, problems)
        _check_room(root, host, cluster, problems)


def _check_encoder(pool: BatchedPool, model: Model, key: str, problems: list[str], sound: bool) -> None:
    if model.kind != "encoder":
        problems.append(f"{key}.model: {model.name} is a {model.kind}; a batched pool needs an encoder")
    if not sound or pool.tensor_parallel < 1:
        return
    check_heads(model, pool.tensor_parallel, key, problems)
    size = weight_bytes(model, pool.tensor_parallel) / 1e9
    memory = pool.hardware.usable_gb or pool.hardware.memory_gb
    if size > memory:
        problems.append(
            f"{key}: the weights of {model.name} take {size:,.1f} GB a device, and {pool.hardware.name} has "
            f"{memory:,g} GB"
        )


def _check_retrieval(fit: RetrievalEfficiency, key: str, problems: list[str]) -> None:
    if all(level.fits_mb is not None for level in fit.levels.values()):
        problems.append(f"{key}.levels: none of them is the memory; expected one whose fits_mb is null")
    if fit.bandwidth_fraction > 1.0:
        problems.append(f"{key}.bandwidth_fraction: {fit.bandwidth_fraction:g} is above 1")


def _check_host(name: str, root: str, pool: AnyPool, cluster: Cluster, problems: list[str]) -> None:
    key = f"cluster.pools.{name}"
    host = cluster.pools.get(root)
    if host is None:
        others = [other for other in cluster.pools if other != name]
        problems.append(f"{key}.host: no pool is called {root!r}{did_you_mean(root, others)}")
    elif root == name:
        problems.append(f"{key}.host: its own name; expected another pool, or null")
    elif host.hardware.kind != "cpu":
        problems.append(f"{key}.host: {root!r} is on {host.hardware.name}, which is no CPU")
    elif not isinstance(host, LLMPool) and host.host is not None:
        problems.append(f"{key}.host: {root!r} is itself on the machines of {host.host!r}; name that pool")
    elif pool.hardware.kind == "cpu" and pool.hardware.name != host.hardware.name:
        problems.append(
            f"{key}.hardware: {pool.hardware.name}, but the machines of {root!r} are {host.hardware.name}; expected "
            "the same"
        )


def _check_cores(root: str, host: AnyPool, on_it: list[tuple[str, BatchedPool]], problems: list[str]) -> None:
    """The clients on one machine must not have more cores than it has; without a figure each takes all."""
    have = host.hardware.cores
    if have is None or host.count < 1 or min((pool.count for _, pool in on_it), default=0) < 1:
        return
    taken = {name: (pool.cores or have) * -(-pool.count // host.count) for name, pool in on_it}
    if sum(-(-pool.count // host.count) for _, pool in on_it) > 1 and sum(taken.values()) > have:
        what = " and ".join(f"{cores} ({name})" for name, cores in taken.items())
        problems.append(
            f"cluster.pools.{on_it[-1][0]}.cores: a machine of {root!r} has {have} cores, and its clients would use "
            f"{what}; give each pool its share"
        )


def _check_room(root: str, host: AnyPool, cluster: Cluster, problems: list[str]) -> None:
    """The tiers of stores that are part of one machine's memory must fit into it."""
    stores = [
        (name, pool)
        for name, pool in cluster.pools.items()
        if isinstance(pool, MemoryPool) and root in (name, pool.host)
    ]
    if host.count < 1 or min((pool.count for _, pool in stores), default=0) < 1:
        return
    for name, pool in stores:
        kept = sum(tier.capacity_gb for tier in pool.tiers.values() if tier.in_host) * -(
            -pool.count // host.count
        )
        if kept > host.hardware.memory_gb:
            problems.append(
                f"cluster.pools.{name}.tiers: those in_host would take {kept:,g} GB of a machine of {root!r}, and "
                f"{host.hardware.name} has {host.hardware.memory_gb:,g} GB"
            )
