"""The keys of failures: when clients of a pool fail or are slow, and what becomes of the tasks that they had."""

from __future__ import annotations

from typing import Literal

from hermes_flow.config.quantities import Count, CountOrZero, FactorFromOne, PositiveSeconds, Seconds
from hermes_flow.errors import ConfigError
from hermes_flow.program.quick_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class FailureEvent:
    """One failure at a given time: of a client, or of all clients of the pool on one node of the network."""

    at_s: Seconds
    """The time of the failure, from the beginning of the run."""
    client: CountOrZero | None = None
    """The number of the client, from 0."""
    node: CountOrZero | None = None
    """The number of the node, from 0, as the network fills them; all clients of the pool on it fail."""
    for_s: PositiveSeconds | None = None
    """The time until the clients take tasks again; null means never."""

    def __post_init__(self) -> None:
        _check_place(self.client, self.node)


@dataclass(frozen=True, slots=True)
class Slowdown:
    """A time in which a client, or all clients of the pool on one node, take longer for each step (a straggler)."""

    at_s: Seconds
    """When it begins, from the beginning of the run."""
    factor: FactorFromOne
    """How many times as long a step takes that is planned while it lasts."""
    client: CountOrZero | None = None
    """The number of the client, from 0."""
    node: CountOrZero | None = None
    """The number of the node, from 0, as the network fills them."""
    for_s: PositiveSeconds | None = None
    """How long it lasts; null means to the end."""

    def __post_init__(self) -> None:
        _check_place(self.client, self.node)


def _check_place(client: int | None, node: int | None) -> None:
    if (client is None) == (node is None):
        raise ConfigError("client", "expected either client or node, and not both")


@dataclass(frozen=True, slots=True)
class Failures:
    """Failures of the clients of a pool: at given times (``events``), at random (``mtbf_s`` and ``repair_s``).

    A client that fails loses its KV, its cache and all tasks that it has. It takes tasks again after the repair,
    with an empty cache. Random times between failures and times of repair are exponential, those of each client from
    a stream of its own.
    """

    mtbf_s: PositiveSeconds | None = None
    """The mean time that a client is up until it fails; null means that none fails at random."""
    repair_s: PositiveSeconds | None = None
    """The mean time from a random failure until the client takes tasks again."""
    events: tuple[FailureEvent, ...] = ()
    """The failures at given times."""
    slowdowns: tuple[Slowdown, ...] = ()
    """The times in which clients are slow and keep their tasks."""
    on_failure: Literal["retry", "migrate", "lose"] = "retry"
    """``retry`` begins lost tasks anew on another client, from the prompt; ``migrate`` lets answers go on there with
    the tokens that they have, whose KV is computed anew unless it came within ``notice_s``; ``lose`` lets their
    requests fail.
    """
    tiers_survive: tuple[Literal["host", "disk"], ...] = ()
    """The tiers of ``offload`` that keep their blocks as a client fails, as where only the engine stops. They are
    there as it comes back, and what they have of a lost prompt moves to the client where that goes on.
    """
    retries: Count = 10
    """How often a task may begin anew; the next time that it is lost, its request fails."""
    notice_s: Seconds = 0.0
    """The time before each failure in which the client takes no new tasks and finishes those it can, as spot
    instances that are taken with notice. With ``migrate`` the KV of its answers moves to other clients meanwhile.
    """
    paid: bool = True
    """Whether a client is paid for while it is down; false for spot instances, which the provider has taken."""

    def __post_init__(self) -> None:
        if (self.mtbf_s is None) != (self.repair_s is None):
            name, other = ("repair_s", "mtbf_s") if self.repair_s is None else ("mtbf_s", "repair_s")
            raise ConfigError(name, f"null, but {other} is given; expected both or neither")
        if self.mtbf_s is None and not self.events and not self.slowdowns:
            raise ConfigError("events", "empty, as slowdowns is, and mtbf_s is null; expected one of them")
