"""Knows which sites serve requests as their clients come and go, and lets requests leave a site that has failed.

A site is open as long as every pool that a request may need there has a client that takes tasks, or will have one by
its autoscaling.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hermes_flow.machine.site_front import SiteFront
from hermes_flow.program.sites import Sites

if TYPE_CHECKING:
    from hermes_flow.machine.pool_fleet import PoolFleet
    from hermes_flow.machine.router_fleet import RouterFleet


class OpenSites:
    """The sites whose clients come and go. ``moves``: requests leave a site where nobody serves them any more."""

    def __init__(self, sites: Sites, front: SiteFront, *, moves: bool) -> None:
        self._sites = sites
        self._front = front
        self._moves = moves
        self._parts: dict[int, list[tuple[RouterFleet, Sequence[PoolFleet]]]] = {}
        self._fixed = list(sites.llm_clients)  # of those among which load is shared, which do not come and go
        self._counted: dict[int, list[PoolFleet]] = {site: [] for site in range(len(sites.names))}
        front.find_open = lambda: self._serving() or sites.open

    def add(self, site: int, part: RouterFleet, fleets: Sequence[PoolFleet]) -> None:
        """Take note of a router at a site, and of the pools there whose clients come and go."""
        self._parts.setdefault(site, []).append((part, fleets))
        if self._moves:
            part.elsewhere = self._leaves

    def count(self, site: int, fleet: PoolFleet, clients: int) -> None:
        """Share load among the clients of a pool that are up; ``clients`` are all of them."""
        self._fixed[site] -= clients
        self._counted[site].append(fleet)

    def may_serve(self) -> bool:
        """Return whether a request that finds no client at its site may be served at another one, now or later."""
        return self._moves and (
            bool(self._serving())
            or any(
                fleet.may_open() for parts in self._parts.values() for _, fleets in parts for fleet in fleets
            )
        )

    def changed(self, now_ns: int) -> None:
        """Take note of clients that come or go; requests that wait where no site is open leave for one that is."""
        counted = self._counted
        self._front.share_among(
            [fixed + sum([fleet.up() for fleet in counted[site]]) for site, fixed in enumerate(self._fixed)]
        )
        found = self._serving()
        if self._moves and found:
            for site, parts in self._parts.items():
                for part, _ in parts if site not in found else ():
                    for _, request in list(part.held):
                        self._front.move(request, now_ns)

    def _serving(self) -> list[int]:
        return [site for site in self._sites.open if self._is_open(site)]

    def _is_open(self, site: int) -> bool:
        return all(
            part.router.is_open or any(fleet.will_start() for fleet in fleets)
            for part, fleets in self._parts.get(site, ())
        )

    def _leaves(self, request: int, now_ns: int) -> bool:
        """Let a request leave its site if that is not open and another one is; return whether it does."""
        found = self._serving()
        if not found or self._front.site[request] in found:
            return False
        self._front.move(request, now_ns)
        return True
