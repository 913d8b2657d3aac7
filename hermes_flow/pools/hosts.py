"""Hosts that clients of several pools share: their names, cores and memory bandwidth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol, cast

from hermes_flow.config.pools import PoolConfig
from hermes_flow.config.schema import Cluster, Hardware
from hermes_flow.cost.energy import busy_power
from hermes_flow.errors import did_you_mean
from hermes_flow.pools.kind import kind_of
from hermes_flow.program.network import HostMemory
from hermes_flow.program.pools import Pool
from hermes_flow.program.power import BusyPower


class HostPool(Protocol):
    """A pool whose clients use some or all cores of a host."""

    @property
    def hardware(self) -> Hardware:
        """The machine."""

    @property
    def cores(self) -> int | None:
        """Cores that a client uses; None: all."""

    @property
    def host(self) -> str | None:
        """The pool on whose machines the clients are; None: on their own."""


def check_hosts(cluster: Cluster, problems: list[str]) -> None:
    """Append the problems of hosts that pools share: their names, their hardware, their cores."""
    whole = len(problems)
    for name, pool in cluster.pools.items():
        if pool.host is not None:
            _check_host(name, pool.host, pool, cluster, problems)
    if len(problems) > whole:
        return
    for root, host in cluster.pools.items():
        on_it = [
            (name, pool)
            for name, pool in cluster.pools.items()
            if root in (name, pool.host) and kind_of(pool).computes_on_host(pool)
        ]
        _check_cores(root, host, on_it, problems)


def with_hosts(pools: Sequence[Pool], cluster: Cluster) -> tuple[list[Pool], list[HostMemory]]:
    """Return the pools, with each client assigned to the memory of its host, and the memories that are shared.

    Client i of a pool with a ``host`` is on the machine of client i modulo the count of that pool.
    """
    memories: list[HostMemory] = []
    lowered = list(pools)
    for root, host in cluster.pools.items():
        readers = [
            index
            for index, (name, pool) in enumerate(cluster.pools.items())
            if root in (name, pool.host) and kind_of(pool).reads_host(pool)
        ]
        if host.hardware is None or sum(pools[index].count for index in readers) <= host.count:
            continue
        fit = host.hardware.retrieval
        rate = host.hardware.bandwidth_gb_s * (1.0 if fit is None else fit.bandwidth_fraction)
        first = len(memories)
        memories += [HostMemory(f"{root}/{machine}", rate) for machine in range(host.count)]
        for index in readers:
            client: Any = pools[index].client
            places = tuple(first + number % host.count for number in range(pools[index].count))
            others = " and ".join(pools[other].name for other in readers if other != index) or "each other"
            note = f"shares {rate:,.4g} GB/s of memory with {others} on the machines of {root}"
            lowered[index] = replace(
                pools[index], client=replace(client, hosts=places), notes=(*pools[index].notes, note)
            )
    return lowered, memories


def host_power(pool: HostPool, key: str, devices: int = 1, by_pass: bool = False) -> BusyPower | None:
    """Return the power of a client on ``devices`` of its hardware or ``cores`` of a host; None if it is unknown.

    ``key`` is that of the hardware. A client on the machine or the device of another pool draws nothing while it is
    idle: that counts there. ``by_pass``: as in BusyPower. Raises ConfigError where a figure is missing.
    """
    share = pool.cores / pool.hardware.cores if pool.cores and pool.hardware.cores else 1.0
    power = busy_power(pool.hardware, key, devices, share)
    if power is None:
        return None
    power = replace(power, by_pass=by_pass)
    if pool.host is None and getattr(pool, "shares_device_with", None) is None:
        return power
    return replace(power, idle_w=0.0, busy_w=power.busy_w - power.idle_w)


def _check_host(name: str, root: str, pool: PoolConfig, cluster: Cluster, problems: list[str]) -> None:
    key = f"cluster.pools.{name}"
    host = cluster.pools.get(root)
    if host is None:
        others = [other for other in cluster.pools if other != name]
        problems.append(f"{key}.host: no pool is called {root!r}{did_you_mean(root, others)}")
    elif root == name:
        problems.append(f"{key}.host: its own name; expected another pool, or null")
    elif host.hardware is None:
        problems.append(f"{key}.host: {root!r} has no machines of its own")
    elif host.hardware.kind != "cpu":
        problems.append(f"{key}.host: {root!r} is on {host.hardware.name}, which is not a CPU")
    elif host.host is not None:
        problems.append(f"{key}.host: {root!r} is itself on the machines of {host.host!r}; name that pool")
    elif (
        pool.hardware is not None and pool.hardware.kind == "cpu" and pool.hardware.name != host.hardware.name
    ):
        problems.append(
            f"{key}.hardware: {pool.hardware.name}, but the machines of {root!r} are {host.hardware.name}; expected "
            "the same"
        )


def _check_cores(
    root: str, host: PoolConfig, on_it: list[tuple[str, PoolConfig]], problems: list[str]
) -> None:
    """The clients on one machine must not have more cores than it has; without a figure each takes all."""
    have = None if host.hardware is None else host.hardware.cores
    if have is None or host.count < 1 or min((pool.count for _, pool in on_it), default=0) < 1:
        return
    taken = {name: (cast(Any, pool).cores or have) * -(-pool.count // host.count) for name, pool in on_it}
    if sum(-(-pool.count // host.count) for _, pool in on_it) > 1 and sum(taken.values()) > have:
        what = " and ".join(f"{cores} ({name})" for name, cores in taken.items())
        problems.append(
            f"cluster.pools.{on_it[-1][0]}.cores: a machine of {root!r} has {have} cores, and its clients would use "
            f"{what}; give each pool its share"
        )
