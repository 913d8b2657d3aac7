"""A hop starts one op of a request on a client; what does not differ between requests is looked up once."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hermes_flow.machine.pool_clients import PoolClients
    from hermes_flow.program.columns import Column


class Hop:
    """What the coordinator needs to start ``op`` for a request.

    ``plain``: the op begins on the client that the router chooses as soon as all ops before it are done; nothing has
    to arrive before. ``choose`` is None where there is one client. ``taken`` tells which requests take the op, None
    where all do. ``after`` is the hop that follows the end of the op in the requests that take it, None where the
    coordinator has to decide what follows; ``skip`` is the same where a request does not take the op.
    ``looks_ahead``: its clients may do at once what follows before anything else happens. ``data`` is what has to
    come first where the op needs nothing else than data: per edge the clients of the op that sends it, the number of
    the first client of that op's pool, the bytes, and the place of those of the first request among them.
    """

    __slots__ = (
        "after",
        "await_data",
        "choose",
        "client",
        "data",
        "first_number",
        "first_task",
        "looks_ahead",
        "notify",
        "op",
        "plain",
        "ranks",
        "ready_ns",
        "skip",
        "submit",
        "taken",
    )

    def __init__(
        self, op: int, pool: PoolClients, ready_ns: Column, client: list[int], *, plain: bool
    ) -> None:
        """``ready_ns`` and ``client`` are the op's columns, with an entry for each request."""
        self.op = op
        self.plain = plain
        self.ready_ns = ready_ns
        self.client = client
        self.first_task = pool.offsets.get(op, 0)
        self.ranks = pool.ranks
        self.notify = pool.notify
        self.choose = pool.choose if pool.chooses else None
        self.submit = [one.submit for one in pool.clients]
        self.looks_ahead = any(one.looks_ahead for one in pool.clients)
        self.await_data = [one.await_data for one in pool.clients]
        self.first_number = pool.first_number
        self.data: list[tuple[list[int], int, list[int], int]] = []
        self.taken: list[bool] | None = None
        self.after: Hop | None = None
        self.skip: Hop | None = None
