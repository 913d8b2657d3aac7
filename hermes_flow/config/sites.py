"""The keys of a site: where users are, where clients stand, and what lies between it and the others."""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar, Literal

from hermes_flow.config.quantities import (
    USD,
    Count,
    GBPerSecond,
    Milliseconds,
    PositiveSeconds,
    Seconds,
    Share,
)
from hermes_flow.errors import ConfigError
from hermes_flow.program.quick_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class SiteOutage:
    """A given time in which a site is down with all clients there."""

    at_s: Seconds
    """The time of the failure, from the beginning of the run."""
    for_s: PositiveSeconds | None = None
    """The time until the site is back; null means never."""


@dataclass(frozen=True, slots=True)
class SiteFailures:
    """Failures of a whole site: at given times (``events``), at random (``mtbf_s`` and ``repair_s``).

    All clients there fail at once. What they had begins anew at another site, unless the pool says otherwise in its
    own ``failures``. Random times between failures and times of repair are exponential.
    """

    mtbf_s: PositiveSeconds | None = None
    """The mean time that the site is up until it fails; null means that it does not fail at random."""
    repair_s: PositiveSeconds | None = None
    """The mean time from a random failure until the site is back."""
    events: tuple[SiteOutage, ...] = ()
    """The failures at given times."""
    on_failure: Literal["retry", "lose"] = "retry"
    """``retry`` lets requests begin anew at another site; ``lose`` lets them fail. A pool with ``failures`` goes by
    those.
    """
    retries: Count = 10
    """How often a task may begin anew; the next time that it is lost, its request fails."""

    def __post_init__(self) -> None:
        if (self.mtbf_s is None) != (self.repair_s is None):
            name, other = ("repair_s", "mtbf_s") if self.repair_s is None else ("mtbf_s", "repair_s")
            raise ConfigError(name, f"null, but {other} is given; expected both or neither")
        if self.mtbf_s is None and not self.events:
            raise ConfigError("events", "empty, and mtbf_s is null; expected one of them")


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
    failures: SiteFailures | None = None
    """When the site fails with all clients there; null: it does not fail as a whole."""
