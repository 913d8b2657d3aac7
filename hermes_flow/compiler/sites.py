"""Spreads the pools of a cluster over its sites, and says where the users of requests are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np

from hermes_flow.config.quantities import MOST_CLIENTS
from hermes_flow.config.schema import Cluster
from hermes_flow.config.sites import Site
from hermes_flow.errors import ConfigError, did_you_mean
from hermes_flow.pools.kind import kind_of
from hermes_flow.program.ops import Op
from hermes_flow.program.pools import Pool
from hermes_flow.program.requests import Requests
from hermes_flow.program.sites import SitePolicy, Sites
from hermes_flow.program.units import Ints, ms_to_ns
from hermes_flow.stages.kind import BYTES_PER_TOKEN
from hermes_flow.workload.shares import check_shares, drawn_by_share
from hermes_flow.workload.streams import stream

_KEY = "cluster.sites"
_GB = 1e9


def with_sites(cluster: Cluster, problems: list[str]) -> Cluster:
    """Return the cluster with so many clients in each pool as all sites together have.

    A pool then says for each site how many clients it has there: ``count`` at every site, unless its ``site`` says
    otherwise. Mistakes go to ``problems``.
    """
    if not cluster.sites:
        problems.extend(
            f"cluster.pools.{name}.site: {site!r}, but cluster.sites has none; expected null"
            for name, pool in cluster.pools.items()
            if (site := getattr(pool, "site", None)) is not None
        )
        return cluster
    pools: dict[str, Any] = {}
    for name, pool in cluster.pools.items():
        neighbour = cluster.pools.get(kind_of(pool).beside(pool) or "")
        if neighbour is not None and getattr(pool, "site", None) is None:
            pool = replace(cast(Any, pool), count=neighbour.count, site=getattr(neighbour, "site", None))
        pools[name] = _spread(name, pool, cluster.sites, problems)
    for name, pool in pools.items():
        if hasattr(pool, "site"):
            problems.extend(
                f"cluster.pools.{name}.{problem}" for problem in kind_of(pool).problems_at_sites(pool, pools)
            )
    if cluster.groups > 1 or cluster.copies > 1:
        problems.append(
            "cluster.groups, cluster.copies: they are not modelled with cluster.sites; expected 1"
        )
    return replace(cluster, pools=pools)


def lower_sites(
    cluster: Cluster,
    pools: Sequence[Pool],
    ops: Sequence[Op],
    requests: Requests,
    seed: int,
    problems: list[str],
) -> Sites | None:
    """Return the sites as the simulator sees them, None where there are none; mistakes go to ``problems``."""
    if not cluster.sites:
        return None
    from hermes_flow.routing.sites import site_policies

    names = list(cluster.sites)
    clients = tuple(_clients(cluster.pools[pool.name], names) for pool in pools)
    serving = _open_sites(pools, ops, clients, names, problems)
    try:
        policy: SitePolicy | None = site_policies.parse(cluster.site_routing, "cluster.site_routing")
        user = _users(cluster.sites, requests, seed)
    except ConfigError as error:
        problems.append(str(error))
        return None
    latency = _latencies(cluster.sites, np.unique(user).tolist(), serving, problems)
    if problems or policy is None:
        return None
    llm = [
        pool for pool, own in zip(pools, clients, strict=True) if kind_of(cluster.pools[pool.name]).prompts
    ]
    counted = [own for pool, own in zip(pools, clients, strict=True) if not llm or pool in llm]
    sites = cluster.sites.values()
    return Sites(
        names=tuple(names),
        clients=clients,
        user=user,
        latency_ns=latency,
        ns_per_byte=_matrix(sites, names, "gb_s", lambda rate: 1e9 / (rate * _GB) if rate else 0.0),
        usd_per_byte=_matrix(sites, names, "usd_per_gb", lambda usd: (usd or 0.0) / _GB),
        last_mile_ns=tuple(ms_to_ns(site.last_mile_ms) for site in sites),
        llm_clients=tuple(
            sum(own.count(site) for own in counted) if site in serving else 0 for site in range(len(names))
        ),
        prompt_bytes=requests.input_tokens * BYTES_PER_TOKEN,
        answer_bytes=requests.output_tokens * BYTES_PER_TOKEN,
        policy=policy,
        label=site_policies.describe(policy),
        moves=_moves(pools),
    )


def unheeded_sites(requests: Requests, cluster: Cluster) -> list[str]:
    """Return a warning if the trace says where users are, and the cluster has no sites."""
    if requests.site is None or cluster.sites:
        return []
    return ["workload.path: the column 'site' has no effect, because cluster.sites has none"]


def _spread(name: str, pool: Any, sites: Mapping[str, Site], problems: list[str]) -> Any:
    key, given = f"cluster.pools.{name}", getattr(pool, "site", None)
    if not hasattr(pool, "site"):
        problems.append(f"{key}: a pool of kind {pool.kind!r} is not modelled with cluster.sites")
        return pool
    problems.extend(
        f"{key}.{setting}: it is not modelled with cluster.sites; expected null"
        for setting in ("host", "shares_device_with")
        if getattr(pool, setting, None) is not None
    )
    if given is None:
        given = dict.fromkeys(sites, pool.count)
    elif isinstance(given, str):
        given = {given: pool.count}
    elif pool.count not in (1, sum(given.values())):
        problems.append(f"{key}.count: {pool.count}, and {key}.site says {sum(given.values())} in all")
    problems.extend(
        f"{_KEY}.{site}.failures: clients of kind {pool.kind!r} ({key}) do not fail; expected null"
        for site in given
        if site in sites and sites[site].failures is not None and not kind_of(pool).elastic
    )
    problems.extend(
        f"{key}.site: no site is called {site!r}{did_you_mean(site, sites)}"
        for site in given
        if site not in sites
    )
    total = sum(given.values())
    if total > MOST_CLIENTS:
        problems.append(f"{key}.site: {total:,} clients; expected at most {MOST_CLIENTS:,}")
        return pool
    return replace(pool, count=total, site=given)


def _clients(pool: Any, names: Sequence[str]) -> tuple[int, ...]:
    """Return the site of each client of a pool, site by site."""
    return tuple(names.index(site) for site, count in pool.site.items() for _ in range(count))


def _open_sites(
    pools: Sequence[Pool],
    ops: Sequence[Op],
    clients: Sequence[tuple[int, ...]],
    names: Sequence[str],
    problems: list[str],
) -> set[int]:
    """Return the sites at which all ops can be served; a site that has clients for some only is a problem."""
    routers: dict[int, set[int]] = {op.pool: set() for op in ops}
    for index, (pool, own) in enumerate(zip(pools, clients, strict=True)):
        router = index if pool.joins is None else pool.joins
        if router in routers:
            routers[router] |= set(own)
    found = set()
    for site, name in enumerate(names):
        lacking = [pools[router].name for router, own in routers.items() if site not in own]
        if not lacking:
            found.add(site)
        elif len(lacking) < len(routers):
            problems.append(
                f"cluster.pools.{lacking[0]}.site: it has no client at site {name!r}, which has clients of others; "
                "expected one in every pool there, or none at all"
            )
    if not found and not problems:
        problems.append(f"{_KEY}: no site has clients")
    return found


def _moves(pools: Sequence[Pool]) -> bool:
    """Return whether requests leave a site where clients have failed, and begin anew at another one."""
    failing = [
        pool.fleet.failing for pool in pools if pool.fleet is not None and pool.fleet.failing is not None
    ]
    return any(one.outages or one.mean_up_ns is not None or one.site is not None for one in failing) and all(
        one.retries for one in failing
    )


def _users(sites: Mapping[str, Site], requests: Requests, seed: int) -> Ints:
    """Return where each request's user is; raises ConfigError."""
    shares = {name: site.users for name, site in sites.items()}
    if requests.site is not None:
        for name in requests.sites:
            if name not in sites:
                known = did_you_mean(name, sites)
                raise ConfigError(
                    "workload.path", f"the trace has users at {name!r}, which {_KEY} lacks{known}"
                )
        if any(shares.values()):
            given = next(name for name, share in shares.items() if share)
            raise ConfigError(f"{_KEY}.{given}.users", "the trace says where users are; leave the shares out")
        names = list(sites)
        place = np.array([names.index(name) for name in requests.sites], dtype=np.int64)
        return place[requests.site]
    check_shares(shares, _KEY, "users")
    chosen = drawn_by_share(list(shares.values()), len(requests), stream(seed, "sites"))
    if requests.session is not None:
        _, first, session = np.unique(requests.session, return_index=True, return_inverse=True)
        chosen = np.where(requests.session < 0, chosen, chosen[first][session])
    return chosen


def _latencies(
    sites: Mapping[str, Site], users: Sequence[int], serving: set[int], problems: list[str]
) -> tuple[tuple[int, ...], ...]:
    """Return the latencies between sites; one that is needed and not given is a problem."""
    names = list(sites)
    found = [[-1] * len(names) for _ in names]
    for here, (name, site) in enumerate(sites.items()):
        for key in ("latency_ms", "gb_s", "usd_per_gb"):
            problems.extend(
                f"{_KEY}.{name}.{key}: no other site is called {other!r}{did_you_mean(other, names)}"
                for other in getattr(site, key)
                if other not in names or other == name
            )
        found[here][here] = 0
        for there, other in enumerate(names):
            given = site.latency_ms.get(other, sites[other].latency_ms.get(name))
            if here != there and given is not None:
                found[here][there] = ms_to_ns(given)
    problems.extend(
        f"{_KEY}.{names[user]}.latency_ms.{names[site]}: missing; users at {names[user]!r} may be served there"
        for user in users
        for site in sorted(serving)
        if found[user][site] < 0
    )
    return tuple(map(tuple, found))


def _matrix(sites: Any, names: Sequence[str], key: str, of: Any) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(of(getattr(site, key).get(other)) for other in names) for site in sites)
