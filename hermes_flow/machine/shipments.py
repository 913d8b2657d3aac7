"""This class puts the transfers between clients on the network, and knows what each of them carries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hermes_flow.network.fabric import Fabric
from hermes_flow.network.topology import Path, Topology

KV: Final = 0  # what a shipment carries
FIRST_LAYERS: Final = 1
DATA: Final = 2


class Shipments:
    """Shipments to the clients of ``ops`` ops with an entry for each of ``requests`` requests.

    What an op needs may be lost on the way, and is then sent again: what was sent earlier brings nothing.
    """

    def __init__(self, ops: int, requests: int) -> None:
        self._requests = requests
        self._tasks = ops * requests
        self.topology: Topology | None = None
        self.fabric: Fabric | None = None
        self.sent: Callable[[], None] = lambda: None  # is called when something was sent
        self.any_lost = False  # some shipment brings nothing any more
        # By op · requests + request: how often what it needs was lost; later shipments have higher numbers.
        self._attempts: dict[int, int] = {}
        self._dropped: set[int] = set()  # requests of which nothing is awaited any more

    def connect(self, topology: Topology, fabric: Fabric, sent: Callable[[], None]) -> None:
        """Set the network, and what to call when something was sent."""
        self.topology = topology
        self.fabric = fabric
        self.sent = sent

    def number(self, task: int, carried: int) -> int:
        """Return the payload of a shipment for a task (op · requests + request), which is task << 2 | ``carried``.

        Where one was lost before, the number of the attempt stands above the task; see ``awaited``.
        """
        if self._attempts:
            task += self._attempts.get(task, 0) * self._tasks
        return task << 2 | carried

    def send(self, path: Path, size: int, op: int, request: int, now_ns: int, carried: int) -> None:
        """Send ``size`` bytes to the client of an op of a request."""
        assert self.fabric is not None
        self.fabric.send(path, size, self.number(op * self._requests + request, carried), now_ns)
        self.sent()

    def awaited(self, number: int) -> int:
        """Return the task whose number and attempt stand in a payload; −1 where nothing is awaited any more."""
        attempt, task = divmod(number, self._tasks)
        lost = attempt != self._attempts.get(task, 0) or task % self._requests in self._dropped
        return -1 if lost else task

    def again(self, task: int) -> None:
        """Let what is on its way to a task bring nothing: it was lost."""
        self.any_lost = True
        self._attempts[task] = self._attempts.get(task, 0) + 1

    def drop(self, request: int) -> None:
        """Let what is on its way to a request bring nothing any more."""
        self.any_lost = True
        self._dropped.add(request)
