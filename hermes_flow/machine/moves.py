"""Moves bytes over the network for clients: in and out of memories, and between two clients."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from hermes_flow.machine.context_handover import Carry
from hermes_flow.machine.engine import Engine
from hermes_flow.network.fabric import Fabric
from hermes_flow.network.topology import Path, Topology
from hermes_flow.pools.client import Passing, Transfer

if TYPE_CHECKING:
    from hermes_flow.machine.carried_kv import Send


class Moves:
    """What clients ask the network to move, and what follows each move."""

    def __init__(self, engine: Engine, topology: Topology, delivered: Callable[[int, int], None]) -> None:
        """Take what ``delivered(payload, now_ns)`` tells of KV that is on an op's client (payloads of 0 and more)."""
        self._engine = engine
        self._topology = topology
        self._delivered = delivered
        self._following: dict[int, Callable[[int], None]] = {}  # negative payload → what follows its move
        self._last = 0

    def attach(self, fabric: Fabric, sent: Callable[[], None]) -> None:
        """Take the links; ``sent()`` follows everything that is put on them."""
        self._fabric, self._sent = fabric, sent

    def way(self, places: tuple[int, ...]) -> Transfer:
        """Return what moves bytes through memories, for a client that reads from them or writes to them."""
        fabric, sent, path = self._fabric, self._sent, self._topology.memory_path(*places)

        def move(size: int, over: Callable[[int], None], now_ns: int, alone_ns: int | None = None) -> None:
            payload = self._expect(over)
            if alone_ns is None:
                fabric.send(path, size, payload, now_ns)
            else:
                fabric.send(path, size, payload, now_ns, most_bytes_per_ns=size / max(1, alone_ns))
            sent()

        return move

    def passing(self, places: tuple[int, ...]) -> Passing:
        """Return what moves bytes through memories that are there before anything else happens, or else -1."""
        engine, fabric, path = self._engine, self._fabric, self._topology.memory_path(*places)

        def move(size: int, now_ns: int) -> int:
            quiet_ns = engine.quiet_ns
            return fabric.pass_alone(path, size, now_ns, quiet_ns) if quiet_ns > now_ns else -1

        return move

    def carry(self) -> Carry:
        """Return what moves bytes between two clients; on one machine they are there at once."""
        engine, fabric, topology, sent = self._engine, self._fabric, self._topology, self._sent

        def carry(sender: int, receiver: int, size: int, over: Callable[[int], None], now_ns: int) -> None:
            path = topology.data_path(sender, receiver)
            at_ns = now_ns
            if path is not None:
                quiet_ns = engine.quiet_ns
                at_ns = fabric.pass_alone(path, size, now_ns, quiet_ns) if quiet_ns > now_ns else -1
            if at_ns >= 0:
                over(at_ns)
                return
            assert path is not None
            fabric.send(path, size, self._expect(over), now_ns)
            sent()

        return carry

    def carry_kv(self) -> Send:
        """Return what moves KV between two clients over all links between them."""
        fabric, topology, sent = self._fabric, self._topology, self._sent

        def carry(
            sender: int, receiver: int, size: int, over: Callable[[int], None], now_ns: int, more_ns: int
        ) -> None:
            path = topology.path(sender, receiver)
            fabric.send(Path(path.links, path.latency_ns + more_ns), size, self._expect(over), now_ns)
            sent()

        return carry

    def moved(self, payload: int, now_ns: int) -> None:
        """A transfer is over: of KV to an op's client, or in or out of a memory."""
        if payload >= 0:
            self._delivered(payload, now_ns)
        else:
            self._following.pop(payload)(now_ns)

    def _expect(self, over: Callable[[int], None]) -> int:
        """Return the payload of a move that ``over(now_ns)`` follows: below 0, unlike those of KV for an op."""
        self._last -= 1
        self._following[self._last] = over
        return self._last
