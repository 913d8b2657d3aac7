"""The fleet of a pool: how many of its clients run at a time, and the contract of the policies that decide it.

A policy is a frozen dataclass whose fields are its settings. Its ``start`` is called once for each pool and run, and
returns a function that is called at every multiple of the pool's interval. That function returns how many clients the
pool should have. The fleet keeps the number within its limits, starts clients at once, and stops them after the
cool-down.

What a policy may read is what a ``FleetView`` offers, as left by all events before the present instant. Only a policy
that is marked ``oracle`` may read the arrivals to come.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal, Protocol, TypeAlias

from hermes_flow.program.quick_dataclass import dataclass

Wanted: TypeAlias = Callable[[int], int]  # now_ns → how many clients the pool should have


class FleetView(Protocol):
    """What a scaling policy may read of a pool. Clients that drain are left out of all counts of clients."""

    def size(self) -> int:
        """Return the number of clients that are up or start."""

    def up(self) -> int:
        """Return the number of clients that take tasks."""

    def queued(self, now_ns: int) -> int:
        """Return the tasks that wait: in the queues of clients, and for a client of the pool."""

    def in_hand(self) -> int:
        """Return the tasks that were routed to the pool, or wait for it, and are not over."""

    def waiting_tokens(self, now_ns: int) -> int:
        """Return the known work of the clients, in the unit that the policy ``least_tokens`` compares."""

    def kv_use(self, now_ns: int) -> float:
        """Return the mean share of KV blocks in use on the clients that are up; 0 where none is."""

    def arrived(self) -> int:
        """Return the tasks that came to the pool so far."""

    def attained(self, since_ns: int) -> tuple[int, int]:
        """Return the requests that ended after ``since_ns``, and how many of them kept the limits of the SLO."""

    def arrivals(self, first_ns: int, last_ns: int) -> int:
        """Return the requests that arrive from ``first_ns`` until before ``last_ns``, for oracles only."""


@dataclass(frozen=True, slots=True)
class ScaledPool:
    """What a policy knows of its pool when the run begins; times in nanoseconds."""

    view: FleetView
    interval_ns: int
    startup_ns: int


class ScalingPolicy(Protocol):
    """A policy with its settings.

    It may have ``needs``, a set that may hold "kv" (the pool's clients have KV), "slo" (the SLO has limits on
    requests) and "arrivals" (the arrivals do not depend on answers).
    """

    @property
    def oracle(self) -> bool:
        """Whether it reads what nobody can know."""

    def start(self, pool: ScaledPool) -> Wanted:
        """Return the function that says how many clients the pool should have; made anew for every run."""


@dataclass(frozen=True, slots=True)
class Autoscaling:
    """The limits of a fleet, and its policy; times in nanoseconds.

    The run begins with ``initial`` clients. ``least`` and ``most`` limit the clients of the pool. Clients stop only
    down to the largest number that the policy wanted within ``cooldown_ns``. At most ``most_up`` clients start and
    ``most_down`` stop at one decision (None: no limit).
    """

    policy: ScalingPolicy
    initial: int
    least: int
    most: int
    interval_ns: int
    startup_ns: int
    cooldown_ns: int
    most_up: int | None = None
    most_down: int | None = None


@dataclass(frozen=True, slots=True)
class Outage:
    """A failure of client ``client`` of a pool at ``at_ns``; ``for_ns`` None: it never comes back."""

    at_ns: int
    client: int
    for_ns: int | None


@dataclass(frozen=True, slots=True)
class Pace:
    """From ``at_ns`` on, each step that client ``client`` of a pool plans takes ``factor`` times its time."""

    at_ns: int
    client: int
    factor: float


@dataclass(frozen=True, slots=True)
class SiteFailing:
    """How a site fails with all clients there: at random, and at given times with their durations (None: for ever).

    Times are in nanoseconds. ``name`` is the site's, whose random times are the same for all pools there.
    """

    name: str
    outages: tuple[tuple[int, int | None], ...] = ()
    mean_up_ns: float | None = None
    mean_down_ns: float | None = None


@dataclass(frozen=True, slots=True)
class Failing:
    """How the clients of a pool fail: by ``outages`` in order of time, and at random, with mean times.

    ``paces`` are the changes of how fast its clients are, in order of time. Times are in nanoseconds. A lost task
    begins anew on another client up to ``retries`` times, and then its request fails. For ``notice_ns`` before a
    failure the client takes no new tasks. ``paid``: it is paid for while down. With ``migrates`` a task keeps the
    tokens that it has written, and only their KV is computed anew. During a notice that KV is sent elsewhere, which
    takes ``kv_bytes_per_token`` and ``kv_bytes_per_sequence``; they are 0 where nothing is sent.
    With ``keeps_tiers`` blocks in tiers of a client that survive it come to where its tasks go. ``site`` is that of
    the clients, where it fails as a whole.
    """

    outages: tuple[Outage, ...] = ()
    mean_up_ns: float | None = None
    mean_down_ns: float | None = None
    retries: int = 10
    notice_ns: int = 0
    paid: bool = True
    paces: tuple[Pace, ...] = ()
    migrates: bool = False
    keeps_tiers: bool = False
    kv_bytes_per_token: float = 0.0
    kv_bytes_per_sequence: float = 0.0
    site: SiteFailing | None = None

    def part(self, first: int, count: int) -> Failing:
        """Return the failures of ``count`` clients from ``first`` on, which are numbered from 0 then."""
        own = range(first, first + count)
        return replace(
            self,
            outages=tuple(
                replace(one, client=one.client - first) for one in self.outages if one.client in own
            ),
            paces=tuple(replace(one, client=one.client - first) for one in self.paces if one.client in own),
        )


@dataclass(frozen=True, slots=True)
class Fleet:
    """What changes the clients of a pool while it runs; ``site`` is where they stand, −1 without sites.

    With sites ``parts`` has a fleet for the clients at each of them: the first one, their number, and the fleet. Then
    ``autoscaling`` and ``failing`` of the whole say how all of them scale and fail.
    """

    autoscaling: Autoscaling | None = None
    failing: Failing | None = None
    site: int = -1
    parts: tuple[tuple[int, int, Fleet], ...] = ()

    def by_site(self, count: int) -> tuple[tuple[int, int, Fleet], ...]:
        """Return the first client, the number of clients, and the fleet of each site, or those of all ``count``."""
        return self.parts or ((0, count, self),)


State: TypeAlias = Literal["off", "starting", "up", "draining", "down", "taken"]
