"""The KV of answers that is sent to other clients while theirs is about to fail, as its notice begins.

An answer goes on where it is until its client fails. What has arrived elsewhere by then need not be computed anew
there. It has no blocks on the other client before its answer is admitted, and is gone if that client goes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from hermes_flow.machine.client_slot import ClientSlot

if TYPE_CHECKING:
    from hermes_flow.machine.coordinator import Coordinator


# (sender, receiver, both numbered over all pools; bytes; what follows at now_ns; now_ns; ns besides those of links)
Send: TypeAlias = Callable[[int, int, int, Callable[[int], None], int, int], None]


class CarriedKV:
    """Sends the KV of answers away from clients that will fail, and knows what has arrived where.

    ``sent`` counts the answers whose KV set out, and ``arrived`` those whose KV was of use.
    """

    def __init__(
        self, coordinator: Coordinator, bytes_per_token: Sequence[float], each: Sequence[float]
    ) -> None:
        """``bytes_per_token`` and ``each``, the bytes of each sequence besides, are by pool."""
        self._coordinator = coordinator
        self._bytes_per_token = bytes_per_token
        self._each = each
        self._on_the_way: dict[tuple[int, int], int] = {}  # (op, request) → the number of its transfer
        self._here: dict[tuple[int, int], tuple[int, int, int]] = {}  # → client, its life, tokens
        self._number = 0
        self.send: Send | None = None

    def leave(self, client: int, tasks: Sequence[tuple[int, int]], now_ns: int) -> None:
        """Send the KV of the answers that ``client`` writes to clients that the router chooses."""
        for op, request in tasks:
            pool = self._coordinator.pools[self._coordinator.placement.pool_of(op)]
            slot = pool.clients[client]
            assert isinstance(slot, ClientSlot)
            tokens = slot.client.kv_tokens(pool.offsets[op] + request, now_ns)
            if tokens and pool.fleet is not None and pool.fleet.is_open(request):
                self._send_away(op, request, client, tokens, now_ns)

    def _send_away(self, op: int, request: int, client: int, tokens: int, now_ns: int) -> None:
        number = self._coordinator.placement.pool_of(op)
        pool = self._coordinator.pools[number]
        target = pool.choose(pool.offsets[op] + request, now_ns)
        slot = pool.clients[target]
        assert isinstance(slot, ClientSlot)
        life, self._number = len(slot.stopped), self._number + 1
        mine = self._on_the_way[op, request] = self._number

        def over(now_ns: int) -> None:
            if self._on_the_way.get((op, request)) == mine:
                del self._on_the_way[op, request]
                self._here[op, request] = (target, life, tokens)

        size = round(tokens * self._bytes_per_token[number] + self._each[number])
        assert self.send is not None
        first = pool.first_number
        self.send(first + client, first + target, size, over, now_ns, 0)

    def take(self, op: int, request: int) -> tuple[int, int] | None:
        """Return the client that has KV of a task whose client has failed, and its tokens; None: no client has."""
        self._on_the_way.pop((op, request), None)
        found = self._here.pop((op, request), None)
        if found is None:
            return None
        target, life, tokens = found
        pool = self._coordinator.pools[self._coordinator.placement.pool_of(op)]
        slot = pool.clients[target]
        assert isinstance(slot, ClientSlot)
        return (target, tokens) if pool.still_up(target) >= 0 and len(slot.stopped) == life else None
