"""The two resources of the network: the ends of transfers that share links, and the arrivals of all transfers.

The end of a transfer that shares links is re-keyed whenever another one joins or leaves. One that is alone, or is on
the way after its last byte, arrives at a known instant. At equal instants ends come before arrivals.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from hermes_flow.machine.engine import Engine
from hermes_flow.network.fabric import Fabric


class NetworkEvents:
    """Lets the engine know when something of ``fabric`` is due: ends have ``rank``, arrivals the one after it."""

    __slots__ = ("_engine", "_fabric", "_rank", "arrivals", "ends")

    def __init__(self, fabric: Fabric, engine: Engine, rank: int) -> None:
        self.ends = Ends(fabric, self)
        self.arrivals = Arrivals(fabric)
        self._fabric = fabric
        self._engine = engine
        self._rank = rank

    def changed(self) -> None:
        """Wake both resources where something was sent, or links have changed."""
        engine, rank = self._engine, self._rank
        known_ns = engine.known_ns
        at_ns = self._fabric.next_end_ns()
        if at_ns != known_ns[rank]:
            engine.wake(rank, at_ns)
        self.arrives()

    def arrives(self) -> None:
        """Wake the arrivals where one comes before all others."""
        at_ns = self._fabric.next_arrival_ns()
        if at_ns < self._engine.known_ns[self._rank + 1]:
            self._engine.wake(self._rank + 1, at_ns)


class Ends:
    """Ends the transfers that share links."""

    __slots__ = ("_events", "_fabric")

    def __init__(self, fabric: Fabric, events: NetworkEvents) -> None:
        self._fabric = fabric
        self._events = events

    def next_ns(self) -> int:
        """Return when the next transfer ends."""
        return self._fabric.next_end_ns()

    def fire(self, now_ns: int) -> int:
        """End the transfers that are due."""
        at_ns = self._fabric.end_due(now_ns)
        self._events.arrives()
        return at_ns

    def settle(self, now_ns: int) -> None:
        """Do nothing: transfers change only at the instants that ``next_ns`` returns."""


class Arrivals:
    """Delivers what has arrived; one that has shared its links since fires at an instant at which nothing arrives."""

    fixed: ClassVar[bool] = True
    __slots__ = ("fire", "next_ns")

    def __init__(self, fabric: Fabric) -> None:
        self.next_ns: Callable[[], int] = fabric.next_arrival_ns
        self.fire: Callable[[int], int] = fabric.deliver

    def settle(self, now_ns: int) -> None:
        """Do nothing: transfers arrive only at the instants that ``next_ns`` returns."""
