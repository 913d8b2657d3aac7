"""Brings blocks of tasks that were lost from the tiers of their client, where these survive it, to another client.

The blocks are read from the tier, and cross the network. On the other client they enter its first tier, from where a
load brings them to the devices like any others. The task comes there as its blocks do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hermes_flow.machine.carried_kv import Send
from hermes_flow.machine.client_slot import ClientSlot

if TYPE_CHECKING:
    from hermes_flow.machine.coordinator import Coordinator


class KeptTiers:
    """The lost tasks whose blocks are on the way to another client."""

    def __init__(self, coordinator: Coordinator, pools: Sequence[bool]) -> None:
        """``pools`` tells of each pool whether tiers of its clients survive them."""
        self._coordinator = coordinator
        self._pools = pools
        self._coming: dict[
            tuple[int, int], int
        ] = {}  # (op, request) → the number of the move that is awaited
        self._number = 0
        self.send: Send | None = None

    def bring(self, op: int, request: int, failed: ClientSlot, now_ns: int) -> bool:
        """Let a lost task begin on a client that the router chooses as its blocks come there.

        Return whether its client had kept any; else nothing happens.
        """
        coordinator = self._coordinator
        number = coordinator.placement.pool_of(op)
        pool = coordinator.pools[number]
        if not self._pools[number] or pool.fleet is None or not pool.fleet.is_open(request):
            return False
        task = pool.offsets[op] + request
        kept = failed.client.read_kept(task, now_ns)
        if kept is None:
            return False
        size, ready_ns = kept
        target = pool.choose(task, now_ns)
        coordinator.placement.place_on(target, op, request, now_ns)
        slot = pool.clients[target]
        assert isinstance(slot, ClientSlot)
        mine = self._coming[op, request] = self._number = self._number + 1

        def over(now_ns: int) -> None:
            if self._coming.get((op, request)) == mine:
                del self._coming[op, request]
                slot.client.take_kept(task, now_ns)
                coordinator.placement.submit(op, request, now_ns)

        assert self.send is not None
        sender = pool.first_number + failed.index
        self.send(sender, pool.first_number + target, size, over, now_ns, ready_ns - now_ns)
        return True

    def forget(self, op: int, request: int) -> None:
        """Let the blocks of a task that is taken back, or lost again, bring nothing."""
        self._coming.pop((op, request), None)
