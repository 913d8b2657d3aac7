"""Pools whose clients come and go: reads their keys, checks what they can be combined with, and lowers them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from typing import TYPE_CHECKING, Any, cast

from hermes_flow.compiler.check import Checked
from hermes_flow.config.convert import shown
from hermes_flow.config.failures import Failures
from hermes_flow.config.pools import PoolConfig
from hermes_flow.config.schema import Cluster, Config
from hermes_flow.errors import ConfigError
from hermes_flow.pools.device_sharing import device_of
from hermes_flow.pools.kind import kind_of
from hermes_flow.program.fleet import Autoscaling, Fleet
from hermes_flow.program.ops import LoadRoute
from hermes_flow.program.pools import Pool
from hermes_flow.program.program import SLOBounds
from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.program.requests import Requests
from hermes_flow.program.units import NS_PER_S, bytes_to_gb, gb_to_bytes

if TYPE_CHECKING:
    from hermes_flow.scaling.settings import AutoscaleSettings, ScalingLimits


@dataclass(frozen=True, slots=True)
class FleetSettings:
    """The settings of the pools whose clients come and go, by name, and the clients that each begins with by site.

    ``at_sites`` has the key by which clients of a pool fail with their site.
    """

    autoscale: Mapping[str, AutoscaleSettings] = field(default_factory=dict)
    begins_with: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    failures: Mapping[str, Failures] = field(default_factory=dict)
    at_sites: Mapping[str, str] = field(default_factory=dict)

    def keys(self) -> dict[str, str]:
        """Return the full key of the setting that lets the clients of a pool come and go, by the pool's name."""
        return {
            **self.at_sites,
            **{name: f"cluster.pools.{name}.failures" for name in self.failures},
            **{name: f"cluster.pools.{name}.autoscale" for name in self.autoscale},
        }


def with_most_clients(config: Config, problems: list[str]) -> tuple[Config, FleetSettings]:
    """Return the configuration with pools of as many clients as they have at most, and their settings."""
    found: dict[str, AutoscaleSettings] = {}
    begins: dict[str, tuple[int, ...]] = {}
    pools: dict[str, PoolConfig] = {}
    for name, pool in config.cluster.pools.items():
        pools[name] = pool
        value = getattr(pool, "autoscale", None)
        if value is None:
            continue
        from hermes_flow.scaling.settings import parse_autoscale

        key = f"cluster.pools.{name}.autoscale"
        try:
            parsed = parse_autoscale(value, key)
        except ConfigError as error:
            problems.append(str(error))
            continue
        limits, at_sites = parsed.limits, _at_sites(pool, config.cluster)
        counts = list(at_sites.values()) or [pool.count]
        if max(counts) > limits.max:
            place, each = ("site", " at each site") if at_sites else ("count", "")
            problems.append(
                f"cluster.pools.{name}.{place}: {max(counts)} is above {key}.max ({limits.max}); expected the "
                f"clients with which the run begins{each}"
            )
            continue
        found[name], begins[name] = parsed, tuple(max(count, limits.min) for count in counts)
        pools[name] = replace(cast(Any, pool), count=limits.max * len(counts))
        if at_sites:
            pools[name] = replace(cast(Any, pools[name]), site=dict.fromkeys(at_sites, limits.max))
    own = {name: getattr(pool, "failures", None) for name, pool in pools.items()}
    failures = {name: value for name, value in own.items() if value is not None}
    settings = FleetSettings(found, begins, failures, _failing_with_sites(pools, config.cluster))
    if not settings.keys():
        return config, settings
    cluster = replace(config.cluster, pools=pools)
    _check_neighbours(settings, cluster, config, problems)
    return replace(config, cluster=cluster), settings


def _at_sites(pool: PoolConfig, cluster: Cluster) -> dict[str, int]:
    """Return how many clients of a pool stand at each site; nothing without sites."""
    found = getattr(pool, "site", None)
    return found if cluster.sites and isinstance(found, dict) else {}


def _failing_with_sites(pools: Mapping[str, PoolConfig], cluster: Cluster) -> dict[str, str]:
    """Return the pools with clients at sites that fail as a whole, each with the key of one."""
    return {
        name: f"cluster.sites.{site}.failures"
        for name, pool in pools.items()
        for site in _at_sites(pool, cluster)
        if site in cluster.sites and cluster.sites[site].failures is not None
    }


def _check_neighbours(settings: FleetSettings, cluster: Cluster, config: Config, problems: list[str]) -> None:
    """Append the problems of fleets that other parts of the configuration do not allow."""
    for name, key in settings.keys().items():
        if cluster.groups > 1:
            problems.append(
                f"{key}: cluster.groups is {cluster.groups}, and clients of groups do not come and go; expected "
                "cluster.groups=1"
            )
        for other, pool in cluster.pools.items():
            if kind_of(pool).beside(pool) == name:
                problems.append(
                    f"{key}: the stores of pool {other!r} stand beside its clients, and do not come and go with "
                    f"them; expected cluster.pools.{other}.beside=null"
                )
            if pool.host == name or (other == name and pool.host is not None):
                problems.append(
                    f"cluster.pools.{other}.host: {pool.host!r}, and clients of machines that pools share do not "
                    f"come and go ({key}); expected null"
                )
            root = device_of(pool)
            if root is not None and name in (root, other):
                problems.append(
                    f"cluster.pools.{other}.shares_device_with: {root!r}, and clients that share devices do not come "
                    f"and go ({key}); expected null"
                )
        if _replays(cluster.pools[name], config):
            problems.append(
                f"{key}: cost=replay has the steps of clients that run all the time; expected null"
            )
    if config.workload.rate_for != "cluster" and settings.autoscale:
        name = next(iter(settings.autoscale))
        problems.append(
            f"workload.rate_for: {shown(config.workload.rate_for)}, but the clients of pool {name!r} "
            "come and go; expected cluster"
        )


def _replays(pool: PoolConfig, config: Config) -> bool:
    own = getattr(pool, "cost", None)
    return bool((config.cost if own is None else own).get("kind") == "replay")


def check_policies(
    settings: FleetSettings, cluster: Cluster, slo: SLOBounds, requests: Requests, problems: list[str]
) -> None:
    """Append the problems of policies that lack what they read."""
    if not settings.autoscale:
        return
    from hermes_flow.scaling import needs_of

    for name, own in settings.autoscale.items():
        key, needs = f"cluster.pools.{name}.autoscale", needs_of(own.policy)
        if "kv" in needs and not kind_of(cluster.pools[name]).prompts:
            problems.append(f"{key}.metric: a pool of kind {cluster.pools[name].kind!r} has no KV")
        if "slo" in needs and not slo.request_limits():
            problems.append(
                f"{key}.policy: the SLO {slo.name!r} has no bounds on ttft_ms, tpot_ms or e2e_ms; expected an SLO "
                "that has, as slo=chat"
            )
        if "arrivals" in needs and requests.wait_for_answers:
            problems.append(
                f"{key}.policy: it knows arrivals, but those of this workload depend on answers; expected another "
                "policy, or a workload of given arrivals"
            )
        if "arrivals" in needs and cluster.sites:
            problems.append(
                f"{key}.policy: it knows arrivals, but a request chooses among cluster.sites as it arrives; expected "
                "another policy"
            )


def check_load_routes(routes: Sequence[LoadRoute], pools: Sequence[Pool], problems: list[str]) -> None:
    """Append the problems of routes by the load of pools whose clients come and go."""
    for route in routes:
        problems.extend(
            f"pipeline.routes.{route.name}: it compares the load of pool {pools[number].name!r}, whose clients come "
            f"and go (cluster.pools.{pools[number].name}.autoscale); expected shares, or a fixed pool"
            for number in route.pools
            if pools[number].fleet is not None
        )


def with_fleets(
    pools: Sequence[Pool], settings: FleetSettings, cluster: Cluster, checked: Checked, problems: list[str]
) -> tuple[Pool, ...]:
    """Return the lowered pools, each with its fleet where it has one."""
    if not settings.autoscale:
        return tuple(pools)
    lowered: list[Pool] = []
    for pool in pools:
        own = settings.autoscale.get(pool.name)
        if own is None:
            lowered.append(pool)
            continue
        try:
            startup_s, note = _startup(pool.name, own.limits, cluster.pools[pool.name], checked)
        except ConfigError as error:
            problems.append(str(error))
            continue
        begins_with = settings.begins_with[pool.name]
        scaling = _autoscaling(own, begins_with[0], startup_s)
        notes = _notes(own, begins_with, note, at_sites=bool(_at_sites(cluster.pools[pool.name], cluster)))
        lowered.append(replace(pool, fleet=Fleet(scaling), notes=(*pool.notes, *notes)))
    return tuple(lowered)


def _autoscaling(own: AutoscaleSettings, initial: int, startup_s: float) -> Autoscaling:
    limits = own.limits
    return Autoscaling(
        policy=own.policy,
        initial=initial,
        least=limits.min,
        most=limits.max,
        interval_ns=round(limits.interval_s * NS_PER_S),
        startup_ns=round(startup_s * NS_PER_S),
        cooldown_ns=round(limits.cooldown_s * NS_PER_S),
        most_up=limits.max_up,
        most_down=limits.max_down,
    )


def _startup(name: str, limits: ScalingLimits, pool: PoolConfig, checked: Checked) -> tuple[float, str]:
    """Return the start-up time of a client in seconds, and where it comes from."""
    if limits.startup_s is not None:
        return limits.startup_s, f"{limits.startup_s:g} s to start (given)"
    boot_s = limits.boot_s or 0.0
    size = kind_of(pool).weight_bytes(pool, checked.reckoned[name])
    if not size:
        return boot_s, f"{boot_s:g} s to start"
    boot = f"{boot_s:g} s to boot, and " if boot_s else ""
    if limits.load_gb_s is not None:
        total = size * max(1, pool.devices)
        seconds = total / gb_to_bytes(limits.load_gb_s)
        how = f"{bytes_to_gb(total):,.1f} GB of weights from storage at {limits.load_gb_s:g} GB/s"
        return boot_s + seconds, f"{boot_s + seconds:,.1f} s to start: {boot}{how}"
    assert pool.hardware is not None
    link = pool.hardware.host_link_gb_s
    if link is None:
        raise ConfigError(
            f"cluster.pools.{name}.autoscale.startup_s",
            f"null, and {pool.hardware.name} has no host_link_gb_s over which weights are loaded; expected "
            "startup_s, or load_gb_s",
        )
    seconds = size / gb_to_bytes(link)
    how = f"{bytes_to_gb(size):,.1f} GB of weights a device from host memory at {link:g} GB/s"
    return boot_s + seconds, f"{boot_s + seconds:,.1f} s to start: {boot}{how}"


def _notes(
    own: AutoscaleSettings, begins_with: Sequence[int], startup: str, *, at_sites: bool
) -> tuple[str, ...]:
    from hermes_flow.scaling import scaling_policies

    limits, policy = own.limits, scaling_policies.describe(own.policy)
    oracle, each = " (an oracle)" if own.policy.oracle else "", " at each site" if at_sites else ""
    paces = [
        f"at most {most} {what} at once"
        for most, what in ((limits.max_up, "start"), (limits.max_down, "stop"))
        if most is not None
    ]
    return (
        f"autoscaling by {policy}{oracle}: {limits.min} to {limits.max} clients{each}, "
        f"{', '.join(map(str, begins_with))} at first, decided every {limits.interval_s:g} s",
        "; ".join([f"a client takes {startup}", f"cool-down {limits.cooldown_s:g} s", *paces]),
    )
