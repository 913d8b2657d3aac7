"""The tasks of a router whose clients come and go: which client has which, and which wait for a client."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from hermes_flow.machine.elastic_router import ElasticRouter

Emptied = Callable[[int, int], None]  # (client, now_ns)


class RouterFleet:
    """What is in hand on each client of a router, by numbers over all pools that it serves.

    A task is op · requests + request. KV that is computed on a client and has not left it is in hand there, too, as
    −1 − the task that receives it. Tasks that are ready while no client is up wait in ``held``, and
    ``resume(op, request, now_ns)`` begins them. ``on_empty`` is called as a client has nothing in hand any more.
    ``may_open`` tells whether a client may take tasks again; where none will, ``give_up(request, now_ns)`` lets
    requests fail. ``elsewhere(request, now_ns)`` tells whether a request goes to another site, where no client is up.
    """

    __slots__ = (
        "_requests",
        "came",
        "elsewhere",
        "give_up",
        "held",
        "in_hand",
        "may_open",
        "on_empty",
        "resume",
        "router",
    )

    def __init__(
        self, router: ElasticRouter, clients: int, requests: int, resume: Callable[[int, int, int], None]
    ) -> None:
        self.router = router
        self.came = 0  # tasks that were ready for the pool so far
        self.in_hand: list[dict[int, None]] = [{} for _ in range(clients)]
        self.held: deque[tuple[int, int]] = deque()
        self.resume = resume
        self.on_empty: Emptied = lambda client, now_ns: None
        self.may_open: Callable[[], bool] = lambda: True
        self.give_up: Callable[[int, int], None] = lambda request, now_ns: None
        self.elsewhere: Callable[[int, int], bool] = lambda request, now_ns: False
        self._requests = requests

    def admits(self, op: int, request: int, now_ns: int) -> bool:
        """Return whether a task that is ready finds a client; else it waits until one is up."""
        self.came += 1
        return self.readmits(op, request, now_ns)

    def readmits(self, op: int, request: int, now_ns: int) -> bool:
        """Return whether a task that begins anew finds a client; else it waits, if one may be up again."""
        if self.router.is_open:
            return True
        if self.elsewhere(request, now_ns):
            return False
        if self.may_open():
            self.held.append((op, request))
        else:
            self.give_up(request, now_ns)
        return False

    def take(self, client: int, op: int, request: int) -> None:
        """Note that a task was routed to a client."""
        self.in_hand[client][op * self._requests + request] = None

    def over(self, client: int, op: int, request: int, now_ns: int) -> None:
        """Note that a task is over."""
        self._drop(client, op * self._requests + request, now_ns)

    def forget(self, client: int, op: int, request: int, now_ns: int) -> bool:
        """Note that a task was taken back; return False if the client did not have it."""
        if op * self._requests + request not in self.in_hand[client]:
            return False
        self.over(client, op, request, now_ns)
        return True

    def drop_held(self, request: int, op: int | None = None) -> None:
        """Forget the tasks of a request that wait for a client, or that of one of its ops."""
        if self.held:
            self.held = deque(
                task for task in self.held if task[1] != request or (op is not None and task[0] != op)
            )

    def keep_kv(self, client: int, op: int, request: int) -> None:
        """Note that a client has the KV that an op of a request will receive."""
        self.in_hand[client][-1 - op * self._requests - request] = None

    def give_kv(self, client: int, op: int, request: int, now_ns: int) -> None:
        """Note that this KV has left the client."""
        self._drop(client, -1 - op * self._requests - request, now_ns)

    def is_open(self, request: int) -> bool:
        """Return whether any client takes tasks of a request."""
        return self.router.is_open

    def is_up(self, client: int) -> bool:
        """Return whether a client takes tasks."""
        return self.router.is_up(client)

    def release(self, now_ns: int) -> None:
        """Begin the tasks that wait, in the order in which they were ready."""
        while self.held and self.router.is_open:
            op, request = self.held.popleft()
            self.resume(op, request, now_ns)
        if self.held and not self.may_open():
            for _, request in list(self.held):
                self.give_up(request, now_ns)
            self.held.clear()

    def of(self, client: int) -> list[tuple[int, int]]:
        """Return the tasks that a client has in hand, (op, request)."""
        return [divmod(key, self._requests) for key in self.in_hand[client] if key >= 0]

    def lose(self, client: int) -> list[tuple[int, int]]:
        """Return what a client had in hand, (op, request), as it fails: its tasks, and those that wait for its KV."""
        keys = [key if key >= 0 else -1 - key for key in self.in_hand[client]]
        self.in_hand[client].clear()
        return [divmod(key, self._requests) for key in dict.fromkeys(keys)]

    def _drop(self, client: int, key: int, now_ns: int) -> None:
        tasks = self.in_hand[client]
        if tasks.pop(key, self) is None and not tasks:
            self.on_empty(client, now_ns)
