"""The keys of links that fail: when, for how long, and what is left of their rate."""

from __future__ import annotations

from hermes_flow.config.quantities import CountOrZero, PositiveSeconds, Seconds, ShareBelowOne
from hermes_flow.errors import ConfigError
from hermes_flow.program.quick_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class LinkFailure:
    """A time in which links give less, or nothing: those of one client, of all clients on a node, or of a rack.

    What moves over them waits and goes on, it is not lost.
    """

    at_s: Seconds
    """The time of the failure, from the beginning of the run."""
    for_s: PositiveSeconds
    """How long it lasts."""
    share: ShareBelowOne = 0.0
    """The share of the rate that is left; 0 means that nothing moves."""
    pool: str | None = None
    """The pool of the ``client``."""
    client: CountOrZero | None = None
    """The number of the client in its pool, from 0: all of its links to others fail."""
    node: CountOrZero | None = None
    """The number of the node, from 0: the links of all clients on it fail."""
    rack: CountOrZero | None = None
    """The number of the rack, from 0: its links to other racks fail."""

    def __post_init__(self) -> None:
        given = [name for name in ("client", "node", "rack") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ConfigError("client", "expected one of client (with pool), node and rack")
        if (self.pool is None) != (self.client is None):
            raise ConfigError("pool", "expected with client, and only with it")
