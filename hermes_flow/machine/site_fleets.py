"""The tasks of a router whose clients come and go at several sites: each site has its own, of its own requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hermes_flow.machine.router_fleet import RouterFleet


class SiteFleets:
    """What a ``RouterFleet`` is to the coordinator, for all sites of a router.

    ``parts`` has the fleet of each site; ``where`` is the site of each client of the router, and ``site_of`` that of
    each request, filled as they set out.
    """

    __slots__ = ("_parts", "_requests", "_site_of", "_where")

    def __init__(
        self, parts: Mapping[int, RouterFleet], where: Sequence[int], site_of: Sequence[int], requests: int
    ) -> None:
        self._parts = parts
        self._where = where
        self._site_of = site_of
        self._requests = requests

    def choose(self, task: int, now_ns: int) -> int:
        """Return the client that serves a task, among those that are up at the site of its request."""
        return self._parts[self._site_of[task % self._requests]].router.choose(task, now_ns)

    def is_open(self, request: int) -> bool:
        """Return whether any client takes tasks at the site of a request."""
        return self._parts[self._site_of[request]].router.is_open

    def is_up(self, client: int) -> bool:
        """Return whether a client takes tasks."""
        return self._of(client).is_up(client)

    def admits(self, op: int, request: int, now_ns: int) -> bool:
        """Return whether a task that is ready finds a client at its site."""
        return self._parts[self._site_of[request]].admits(op, request, now_ns)

    def readmits(self, op: int, request: int, now_ns: int) -> bool:
        """Return whether a task that begins anew finds a client at its site."""
        return self._parts[self._site_of[request]].readmits(op, request, now_ns)

    def take(self, client: int, op: int, request: int) -> None:
        """Note that a task was routed to a client."""
        self._of(client).take(client, op, request)

    def over(self, client: int, op: int, request: int, now_ns: int) -> None:
        """Note that a task is over."""
        self._of(client).over(client, op, request, now_ns)

    def forget(self, client: int, op: int, request: int, now_ns: int) -> bool:
        """Note that a task was taken back; return False if the client did not have it."""
        return self._of(client).forget(client, op, request, now_ns)

    def drop_held(self, request: int, op: int | None = None) -> None:
        """Forget the tasks of a request that wait for a client, or that of one of its ops."""
        for part in self._parts.values():
            part.drop_held(request, op)

    def keep_kv(self, client: int, op: int, request: int) -> None:
        """Note that a client has the KV that an op of a request will receive."""
        self._of(client).keep_kv(client, op, request)

    def give_kv(self, client: int, op: int, request: int, now_ns: int) -> None:
        """Note that this KV has left the client."""
        self._of(client).give_kv(client, op, request, now_ns)

    def _of(self, client: int) -> RouterFleet:
        return self._parts[self._where[client]]
