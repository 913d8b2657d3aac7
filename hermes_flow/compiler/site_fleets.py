"""Gives each site the fleet of the clients there: what scales them, and how they fail, also with their site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from hermes_flow.compiler.failures import check_retries
from hermes_flow.compiler.fleets import FleetSettings
from hermes_flow.config.schema import Cluster
from hermes_flow.config.sites import Site, SiteFailures
from hermes_flow.program.fleet import Failing, Fleet, SiteFailing
from hermes_flow.program.ops import LoadRoute, Op
from hermes_flow.program.pools import Pool
from hermes_flow.program.units import NS_PER_S


def with_site_fleets(
    pools: Sequence[Pool],
    settings: FleetSettings,
    cluster: Cluster,
    ops: Sequence[Op],
    routes: Sequence[LoadRoute],
    problems: list[str],
) -> tuple[Pool, ...]:
    """Return the pools, each with a fleet for every site where clients come and go; mistakes go to ``problems``."""
    if not cluster.sites:
        return tuple(pools)
    lowered: list[Pool] = []
    for index, pool in enumerate(pools):
        counts: Mapping[str, int] = getattr(cluster.pools[pool.name], "site", {})
        failing = {site: own for site in counts if (own := cluster.sites[site].failures) is not None}
        if pool.fleet is None and not failing:
            lowered.append(pool)
            continue
        if failing:
            router = index if pool.joins is None else pool.joins
            _check(pool.name, failing, settings, router, ops, routes, problems)
        lowered.append(_at_sites(pool, counts, settings.begins_with.get(pool.name), cluster.sites))
    return tuple(lowered)


def _check(
    pool: str,
    failing: Mapping[str, SiteFailures],
    settings: FleetSettings,
    router: int,
    ops: Sequence[Op],
    routes: Sequence[LoadRoute],
    problems: list[str],
) -> None:
    """Append the problems of requests that cannot begin anew at another site."""
    for site, site_failures in failing.items():
        key, own = f"cluster.sites.{site}.failures", settings.failures.get(pool, site_failures)
        if own.on_failure != "lose":
            check_retries(key, own.on_failure, [op for op in ops if op.pool == router], ops, problems)
            problems.extend(
                f"{key}.on_failure: {own.on_failure}, but the route {route.name!r} by load does not begin anew; "
                "expected lose"
                for route in routes
            )


def _at_sites(
    pool: Pool, counts: Mapping[str, int], begins_with: Sequence[int] | None, sites: Mapping[str, Site]
) -> Pool:
    """Return a pool with a fleet for the clients at each site."""
    whole = pool.fleet or Fleet()
    names, notes = list(sites), list(pool.notes)
    parts: list[tuple[int, int, Fleet]] = []
    failing, first = whole.failing, 0
    for number, (site, count) in enumerate(counts.items()):
        scaling, own = whole.autoscaling, sites[site].failures
        if scaling is not None and begins_with is not None:
            scaling = replace(scaling, initial=begins_with[number])
        part = None if whole.failing is None else whole.failing.part(first, count)
        if own is not None:
            part = replace(part or _failing(own), site=_site_failing(site, own))
            failing = failing or _failing(own)
            failing = replace(failing, site=part.site)
            notes.append(_note(site, own))
        parts.append((first, count, Fleet(scaling, part, site=names.index(site))))
        first += count
    fleet = replace(whole, failing=failing, parts=tuple(parts))
    return replace(pool, fleet=fleet, notes=tuple(notes))


def _failing(own: SiteFailures) -> Failing:
    return Failing(retries=0 if own.on_failure == "lose" else own.retries)


def _site_failing(site: str, own: SiteFailures) -> SiteFailing:
    outages = sorted(
        (
            (
                round(event.at_s * NS_PER_S),
                None if event.for_s is None else max(1, round(event.for_s * NS_PER_S)),
            )
            for event in own.events
        ),
        key=lambda outage: outage[0],
    )
    up_s, down_s = own.mtbf_s, own.repair_s
    return SiteFailing(
        site,
        tuple(outages),
        None if up_s is None else up_s * NS_PER_S,
        None if down_s is None else down_s * NS_PER_S,
    )


def _note(site: str, own: SiteFailures) -> str:
    parts = [f"{len(own.events):,} given failures"] if own.events else []
    if own.mtbf_s is not None and own.repair_s is not None:
        share = own.mtbf_s / (own.mtbf_s + own.repair_s)
        parts.append(
            f"random failures after {own.mtbf_s:g} s, repaired in {own.repair_s:g} s ({share:.2%} available)"
        )
    return f"with its site {site}: {', '.join(parts)}"
