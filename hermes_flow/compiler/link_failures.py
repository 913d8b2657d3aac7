"""Lowers the failures of links: what each link gives less of, and when it gives all again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Literal

from hermes_flow.config.link_failures import LinkFailure
from hermes_flow.program.network import LinkChange, Network
from hermes_flow.program.pools import Pool
from hermes_flow.program.units import NS_PER_S

_KEY = "network.failures"

_Place = tuple[Literal["client", "rack"], int]


def with_link_failures(
    network: Network | None, failures: Sequence[LinkFailure], pools: Sequence[Pool], problems: list[str]
) -> Network | None:
    """Return the network with the changes of its links."""
    if not failures:
        return network
    if network is None:
        problems.append(f"{_KEY}: nothing moves between clients over the network; expected []")
        return network
    spans: dict[_Place, list[tuple[int, int, float, int]]] = {}  # → (begin, end, share, number)
    for number, failure in enumerate(failures):
        begin = round(failure.at_s * NS_PER_S)
        span = (begin, begin + max(1, round(failure.for_s * NS_PER_S)), failure.share, number)
        for place in _places(f"{_KEY}.{number}", failure, network, pools, problems):
            spans.setdefault(place, []).append(span)
    changes: list[LinkChange] = []
    for (of, owner), own in spans.items():
        own.sort()
        for (_, end, _, number), (begin, _, _, later) in pairwise(own):
            if begin < end:
                problems.append(
                    f"{_KEY}.{later}.at_s: the same links have failed by {_KEY}.{number} until after that time; "
                    "expected times that do not overlap"
                )
        begins = {begin for begin, _, _, _ in own}
        changes += [LinkChange(begin, of, owner, share) for begin, _, share, _ in own]
        changes += [LinkChange(end, of, owner, 1.0) for _, end, _, _ in own if end not in begins]
    changes.sort(key=lambda change: (change.at_ns, change.of, change.number))
    return replace(network, changes=tuple(changes))


def _places(
    key: str, failure: LinkFailure, network: Network, pools: Sequence[Pool], problems: list[str]
) -> list[_Place]:
    """Return the clients or the rack whose links fail."""
    if failure.client is not None:
        first = 0
        for pool in pools:
            if pool.name == failure.pool:
                if failure.client < pool.count:
                    return [("client", first + failure.client)]
                problems.append(
                    f"{key}.client: there is no client {failure.client}; expected 0 to {pool.count - 1}"
                )
                return []
            first += pool.count
        names = ", ".join(pool.name for pool in pools)
        problems.append(f"{key}.pool: there is no pool {failure.pool!r}; expected one of {names}")
        return []
    if failure.node is not None:
        found: list[_Place] = [
            ("client", client) for client, node in enumerate(network.nodes) if node == failure.node
        ]
        if not found:
            known = ", ".join(str(node) for node in sorted(set(network.nodes)))
            problems.append(f"{key}.node: no client is on node {failure.node}; they are on {known}")
        return found
    racks = {network.racks[node] for node in network.nodes}
    if len(racks) == 1:
        problems.append(f"{key}.rack: all clients are in one rack, whose links to others are not used")
        return []
    if failure.rack not in racks:
        known = ", ".join(str(rack) for rack in sorted(racks))
        problems.append(f"{key}.rack: no client is in rack {failure.rack}; they are in {known}")
        return []
    assert failure.rack is not None
    return [("rack", failure.rack)]
