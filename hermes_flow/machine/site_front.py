"""Sends each request to a site: it chooses one, and lets the request begin there when it has come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import ClassVar

from hermes_flow.program.sites import Sites
from hermes_flow.program.units import NEVER


class SiteFront:
    """A resource that fires as requests come to their sites.

    ``start(request, now_ns)`` begins one there. ``site`` is that of each request, −1 where it has not set out;
    ``out_ns`` and ``back_ns`` are its ways. It is what site policies read (``SiteView``).
    """

    fixed: ClassVar[bool] = True

    def __init__(self, sites: Sites, start: Callable[[int, int], None], site_of: list[int]) -> None:
        count = len(sites.user)
        self._sites = sites
        self._start = start
        self._coming: list[tuple[int, int]] = []  # heap of (instant, request)
        self._in_hand = [0] * len(sites.names)
        self.open: Sequence[int] = sites.open
        self.round_trip_s = sites.round_trip_s
        self.prompt_usd = sites.prompt_usd
        self.site = site_of
        self.out_ns = [0] * count
        self.back_ns = [0] * count
        self.on_wake: Callable[[int], None] = lambda at_ns: None
        self._choose = sites.policy.start(self)

    def per_client(self, site: int) -> float:
        """Return the requests that were sent to a site and are not over, per LLM client there."""
        return self._in_hand[site] / self._sites.llm_clients[site]

    def arrive(self, request: int, now_ns: int) -> None:
        """Send a request on its way."""
        site = self._choose(request, now_ns)
        self.site[request] = site
        self.out_ns[request] = out = self._sites.out_ns(request, site)
        self.back_ns[request] = self._sites.back_ns(request, site)
        self._in_hand[site] += 1
        heappush(self._coming, (now_ns + out, request))
        self.on_wake(self._coming[0][0])

    def left(self, request: int) -> None:
        """Note that a request is over at its site; one that never set out is at none."""
        if self.site[request] >= 0:
            self._in_hand[self.site[request]] -= 1

    def next_ns(self) -> int:
        """Return when the next request comes to its site."""
        return self._coming[0][0] if self._coming else NEVER

    def fire(self, now_ns: int) -> int:
        """Begin the requests that are there."""
        coming = self._coming
        while coming and coming[0][0] <= now_ns:
            self._start(heappop(coming)[1], now_ns)
        return self.next_ns()

    def settle(self, now_ns: int) -> None:
        """Do nothing: nothing changes between the instants that ``next_ns`` returns."""
