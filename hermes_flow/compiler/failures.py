"""Checks and lowers the failures and slow times of a pool's clients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from hermes_flow.config.failures import FailureEvent, Failures, Slowdown
from hermes_flow.config.schema import Cluster
from hermes_flow.pools.kind import KVShape, kind_of
from hermes_flow.program.fleet import Failing, Fleet, Outage, Pace
from hermes_flow.program.network import Network
from hermes_flow.program.ops import Op
from hermes_flow.program.pools import Pool
from hermes_flow.program.units import NEVER, NS_PER_S


def with_failures(
    pools: Sequence[Pool],
    failures: Mapping[str, Failures],
    cluster: Cluster,
    ops: Sequence[Op],
    network: Network | None,
    problems: list[str],
) -> tuple[Pool, ...]:
    """Return the pools, each with the failures of its clients where it has any."""
    if not failures:
        return tuple(pools)
    lowered: list[Pool] = []
    first = 0
    for index, pool in enumerate(pools):
        own = failures.get(pool.name)
        if own is None:
            lowered.append(pool)
        else:
            key = f"cluster.pools.{pool.name}.failures"
            if own.on_failure != "lose" and (own.events or own.mtbf_s is not None):
                router = index if pool.joins is None else pool.joins
                check_retries(key, own.on_failure, [op for op in ops if op.pool == router], ops, problems)
                problem = kind_of(cluster.pools[pool.name]).migration_problem(cluster.pools[pool.name])
                if own.on_failure == "migrate" and problem is not None:
                    problems.append(f"{key}.on_failure: migrate, but {problem}; expected retry or lose")
            tiers = getattr(getattr(cluster.pools[pool.name], "offload", None), "tiers", ())
            problems.extend(
                f"{key}.tiers_survive: {tier} is no tier of cluster.pools.{pool.name}.offload; expected some of its "
                f"tiers ({', '.join(tiers) or 'it has none'})"
                for tier in own.tiers_survive
                if tier not in tiers
            )
            outages = _outages(key, own, pool, first, network, problems)
            paces = _paces(key, own, pool, first, network, problems)
            if own.slowdowns:
                problem = kind_of(cluster.pools[pool.name]).pace_problem(cluster.pools[pool.name])
                if problem is not None:
                    problems.append(f"{key}.slowdowns: {problem}")
            lowered.append(_failing(pool, own, outages, paces))
            if carries_kv(own):
                lowered[-1] = _with_kv(
                    lowered[-1], kind_of(cluster.pools[pool.name]).kv_shape(cluster.pools[pool.name])
                )
        first += pool.count
    return tuple(lowered)


def carries_kv(failures: Failures) -> bool:
    """Return whether the KV of answers moves to other clients while theirs is about to fail."""
    return failures.on_failure == "migrate" and failures.notice_s > 0


def moves_kv(failures: Failures) -> bool:
    """Return whether KV moves among the clients of a pool as some of them fail."""
    return carries_kv(failures) or bool(failures.tiers_survive and failures.on_failure != "lose")


def _with_kv(pool: Pool, shape: KVShape | None) -> Pool:
    """Return a pool with the size of the KV that its clients send away before they fail."""
    fleet = pool.fleet
    assert fleet is not None
    assert fleet.failing is not None
    if shape is None:  # a problem is named
        return pool
    failing = replace(
        fleet.failing,
        kv_bytes_per_token=shape.bytes_per_token,
        kv_bytes_per_sequence=shape.bytes_per_sequence,
    )
    return replace(pool, fleet=replace(fleet, failing=failing))


def _failing(pool: Pool, own: Failures, outages: tuple[Outage, ...], paces: tuple[Pace, ...]) -> Pool:
    """Return a pool whose clients fail."""
    up_s, down_s = own.mtbf_s, own.repair_s
    failing = Failing(
        outages=outages,
        mean_up_ns=None if up_s is None else up_s * NS_PER_S,
        mean_down_ns=None if down_s is None else down_s * NS_PER_S,
        retries=own.retries if own.on_failure != "lose" else 0,
        notice_ns=round(own.notice_s * NS_PER_S),
        paid=own.paid,
        paces=paces,
        migrates=own.on_failure == "migrate",
        keeps_tiers=bool(own.tiers_survive) and own.on_failure != "lose",
    )
    parts = [f"{len(outages):,} given failures of clients"] if outages else []
    if up_s is not None and down_s is not None:
        share = up_s / (up_s + down_s)
        parts.append(
            f"random failures after {up_s:g} s, repaired in {down_s:g} s on average ({share:.2%} available)"
        )
    if parts:
        again = "answers go on elsewhere" if failing.migrates else "lost tasks begin anew"
        parts.append(again if failing.retries else "lost tasks fail")
    if own.slowdowns:
        parts.append(f"{len(own.slowdowns):,} given times in which clients are slow")
    if own.tiers_survive:
        parts.append(f"what is in {' and '.join(own.tiers_survive)} survives")
    if own.notice_s:
        parts.append(f"a notice of {own.notice_s:g} s" + (" in which KV moves" if carries_kv(own) else ""))
    fleet = replace(pool.fleet or Fleet(), failing=failing)
    return replace(pool, fleet=fleet, notes=(*pool.notes, "; ".join(parts)))


def _outages(
    key: str, own: Failures, pool: Pool, first: int, network: Network | None, problems: list[str]
) -> tuple[Outage, ...]:
    """Return the given failures of a pool's clients in order of time; ``first`` counts clients over all pools."""
    found: list[Outage] = []
    for number, event in enumerate(own.events):
        at_ns = round(event.at_s * NS_PER_S)
        for_ns = None if event.for_s is None else max(1, round(event.for_s * NS_PER_S))
        clients = _clients_of(f"{key}.events.{number}", event, pool, first, network, problems)
        found += [Outage(at_ns, client, for_ns) for client in clients]
    return tuple(sorted(found, key=lambda outage: (outage.at_ns, outage.client)))


def _paces(
    key: str, own: Failures, pool: Pool, first: int, network: Network | None, problems: list[str]
) -> tuple[Pace, ...]:
    """Return the changes of pace of a pool's clients in order of time."""
    spans: dict[int, list[tuple[int, int, float, int]]] = {}  # client → (begin, end, factor, number)
    for number, slow in enumerate(own.slowdowns):
        begin = round(slow.at_s * NS_PER_S)
        end = NEVER if slow.for_s is None else begin + max(1, round(slow.for_s * NS_PER_S))
        for client in _clients_of(f"{key}.slowdowns.{number}", slow, pool, first, network, problems):
            spans.setdefault(client, []).append((begin, end, slow.factor, number))
    found: list[Pace] = []
    for client, own_spans in spans.items():
        own_spans.sort()
        for (_, end, _, number), (begin, _, _, later) in pairwise(own_spans):
            if begin < end:
                problems.append(
                    f"{key}.slowdowns.{later}.at_s: client {client} is slow by slowdowns.{number} until after that "
                    "time; expected times that do not overlap"
                )
        found += [Pace(begin, client, factor) for begin, _, factor, _ in own_spans]
        begins = {begin for begin, _, _, _ in own_spans}
        found += [Pace(end, client, 1.0) for _, end, _, _ in own_spans if end < NEVER and end not in begins]
    return tuple(sorted(found, key=lambda pace: (pace.at_ns, pace.client)))


def _clients_of(
    key: str,
    event: FailureEvent | Slowdown,
    pool: Pool,
    first: int,
    network: Network | None,
    problems: list[str],
) -> list[int]:
    """Return the clients of a pool that an event is about."""
    if event.client is not None:
        clients = [event.client] if event.client < pool.count else []
        problem = f"client: there is no client {event.client}; expected 0 to {pool.count - 1}"
    elif network is None:
        clients, problem = [], "node: no node is known where nothing moves between machines; expected client"
    else:
        nodes = network.nodes[first : first + pool.count]
        clients = [client for client, node in enumerate(nodes) if node == event.node]
        known = ", ".join(str(node) for node in sorted(set(nodes)))
        problem = f"node: no client of pool {pool.name!r} is on node {event.node}; they are on {known}"
    if not clients:
        problems.append(f"{key}.{problem}")
    return clients


def check_retries(
    key: str, on_failure: str, own: Sequence[Op], ops: Sequence[Op], problems: list[str]
) -> None:
    """Append the problems of ops whose lost tasks cannot begin anew."""
    numbers = {number for number, op in enumerate(ops) if op in own}
    for what, found in (
        ("begins with a retrieved context", any(op.context is not None for op in own)),
        (
            "is read while it is written",
            any(op.at_token is not None and numbers & set(op.after) for op in ops),
        ),
        ("shares KV among branches", any(op.kv is not None and op.with_op is not None for op in own)),
    ):
        if found:
            problems.append(
                f"{key}.on_failure: {on_failure}, but a stage of the pool {what}, and such a stage does "
                "not begin anew; expected lose"
            )
