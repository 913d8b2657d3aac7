"""The keys of a site: where users are, where clients stand, and what lies between it and the others."""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar

from hermes_flow.config.quantities import USD, GBPerSecond, Milliseconds, Share
from hermes_flow.program.quick_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Site:
    """A place with users, with clients, or with both.

    ``latency_ms``, ``gb_s`` and ``usd_per_gb`` are of what leaves this site for another, by that one's name. A
    latency that is given in one direction only holds for both.
    """

    in_tables: ClassVar[bool] = True  # a mapping of sites replaces the one before it

    users: Share = 0.0
    """The share of all requests, or of all sessions, whose users are here."""
    last_mile_ms: Milliseconds = 0.0
    """The time between a user and the site, in each direction."""
    latency_ms: dict[str, Milliseconds] = field(default_factory=dict)
    """The time from this site to another, in one direction, by its name."""
    gb_s: dict[str, GBPerSecond] = field(default_factory=dict)
    """The rate at which a prompt moves to another site, by its name; without one it takes the latency alone."""
    usd_per_gb: dict[str, USD] = field(default_factory=dict)
    """The price of data that leaves this site for another, by its name; without one it is free."""
