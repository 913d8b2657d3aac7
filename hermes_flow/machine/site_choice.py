"""Lets each task go to a client at the site of its request."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hermes_flow.program.sites import Sites
from hermes_flow.routing import Choose

ChooseAmong = Callable[[Sequence[int], str], Choose]


def choice_at_site(
    sites: Sites, members: Sequence[int], site_of: Sequence[int], requests: int, among: ChooseAmong
) -> Choose:
    """Return the choice among the clients of a router; ``members`` are the pools that it serves.

    ``among(places, site)`` returns the choice of the pool's own policy among some of them. ``site_of`` is filled as
    ``requests`` set out.
    """
    where = [site for member in members for site in sites.clients[member]]
    places = {site: [place for place, own in enumerate(where) if own == site] for site in sorted(set(where))}
    choices = {site: among(own, sites.names[site]) for site, own in places.items()}

    def choose(task: int, now_ns: int) -> int:
        site = site_of[task % requests]
        return places[site][choices[site](task, now_ns)]

    return choose
