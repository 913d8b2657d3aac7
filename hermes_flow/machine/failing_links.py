"""Lets links of the network give less for a time, as a resource of the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hermes_flow.network.fabric import Fabric
from hermes_flow.network.topology import Topology
from hermes_flow.program.network import LinkChange
from hermes_flow.program.units import NEVER


class FailingLinks:
    """Makes the changes that are due; those of an instant come after the transfers that end then.

    ``is_over`` tells whether nothing else is left to happen. ``on_change`` is called as transfers may end at other
    times.
    """

    def __init__(self, changes: Sequence[LinkChange], topology: Topology, fabric: Fabric) -> None:
        self._coming = list(changes)[::-1]  # the next one last
        self._topology = topology
        self._fabric = fabric
        self.is_over: Callable[[], bool] = lambda: False
        self.on_change: Callable[[], None] = lambda: None

    def next_ns(self) -> int:
        """Return when links change next."""
        return self._coming[-1].at_ns if self._coming else NEVER

    def fire(self, now_ns: int) -> int:
        """Change the links that are due."""
        if self._fabric.is_idle and self.is_over():
            self._coming.clear()
        while self._coming and self._coming[-1].at_ns <= now_ns:
            change = self._coming.pop()
            links = self._topology.links_of(change.of, change.number)
            self._fabric.set_share(links, change.share, now_ns)
        self.on_change()
        return self.next_ns()

    def settle(self, now_ns: int) -> None:
        """Do nothing: links change only at the instants that ``next_ns`` returns."""
