"""Sites with users and clients, and the contract of the policies that choose a site for each request.

A site policy is a frozen dataclass whose fields are its settings. Its ``start`` is called once for each run and
returns ``choose(request, now_ns)``, which is called as the request sets out from its user, and returns one of
``view.open``. The request stays at that site. A policy may read what the view says; true lengths of answers are not
among it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

import numpy as np

from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.program.units import NS_PER_S, Ints

ChooseSite: TypeAlias = Callable[[int, int], int]  # (request, now_ns) → the site that serves it


class SiteView(Protocol):
    """What a site policy may read; sites are numbers."""

    @property
    def open(self) -> Sequence[int]:
        """The sites that serve requests now; where none does, those that have clients."""

    def round_trip_s(self, request: int, site: int) -> float:
        """Return the time from the request's user to a site and back, the moving of its prompt included."""

    def prompt_usd(self, request: int, site: int) -> float:
        """Return the price of moving the request's prompt to a site."""

    def per_client(self, site: int) -> float:
        """Return the requests that were sent to a site and are not over, per LLM client there."""


class SitePolicy(Protocol):
    """A policy that chooses the site of each request."""

    def start(self, view: SiteView) -> ChooseSite:
        """Return the choice of a site; made anew for every run."""


@dataclass(frozen=True, slots=True)
class Sites:
    """The sites of a program, by number.

    ``clients`` has the site of each client, by pool. ``user`` is where each request's user is. Matrices are by the
    site that data leaves and the one that it goes to: ``latency_ns`` (−1: never needed), ``ns_per_byte``,
    ``usd_per_byte``. ``last_mile_ns`` lies between users and their site. ``llm_clients`` are the clients at each site
    among which load is shared. ``prompt_bytes`` and ``answer_bytes`` are those of each request.
    """

    names: tuple[str, ...]
    clients: tuple[tuple[int, ...], ...]
    user: Ints
    latency_ns: tuple[tuple[int, ...], ...]
    ns_per_byte: tuple[tuple[float, ...], ...]
    usd_per_byte: tuple[tuple[float, ...], ...]
    last_mile_ns: tuple[int, ...]
    llm_clients: tuple[int, ...]
    prompt_bytes: Ints
    answer_bytes: Ints
    policy: SitePolicy
    label: str = ""
    moves: bool = False  # requests leave a site that has failed, and begin anew at another one

    @property
    def open(self) -> tuple[int, ...]:
        """The sites that have clients."""
        return tuple(site for site, count in enumerate(self.llm_clients) if count)

    def out_ns(self, request: int, site: int) -> int:
        """Return the time that a request takes from its user to a site."""
        here = int(self.user[request])
        way = self.way_ns(request, site)
        if here != site:
            way += round(int(self.prompt_bytes[request]) * self.ns_per_byte[here][site])
        return way

    def way_ns(self, request: int, site: int) -> int:
        """Return the time that a message without a prompt takes from a request's user to a site."""
        here = int(self.user[request])
        return self.last_mile_ns[here] + (0 if here == site else self.latency_ns[here][site])

    def back_ns(self, request: int, site: int) -> int:
        """Return the time that each token takes from a site to the request's user."""
        here = int(self.user[request])
        return self.last_mile_ns[here] + (0 if here == site else self.latency_ns[site][here])

    def round_trip_s(self, request: int, site: int) -> float:
        """Return the time from the request's user to a site and back, the moving of its prompt included."""
        return (self.out_ns(request, site) + self.back_ns(request, site)) / NS_PER_S

    def prompt_usd(self, request: int, site: int) -> float:
        """Return the price of moving the request's prompt to a site."""
        return int(self.prompt_bytes[request]) * self.usd_per_byte[int(self.user[request])][site]

    def transfer_usd(self, site: Ints) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """Return the price of moving prompt and answer of each request, by the site that served it (−1: free)."""
        price = np.array(self.usd_per_byte)
        served = np.maximum(site, 0)
        usd = self.prompt_bytes * price[self.user, served] + self.answer_bytes * price[served, self.user]
        return np.where(site >= 0, usd, 0.0)
