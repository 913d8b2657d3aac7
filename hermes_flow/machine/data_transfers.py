"""Moves what earlier ops have left for an op, its data, to the client that serves it."""

from __future__ import annotations

from collections.abc import Callable

from hermes_flow.machine.engine import Engine
from hermes_flow.machine.hops import Hop
from hermes_flow.machine.pool_clients import PoolClients
from hermes_flow.machine.shipments import DATA, Shipments
from hermes_flow.program.columns import Column, column
from hermes_flow.program.program import Program


class DataTransfers:
    """Sends the data of ops over the network, and knows when all of it is there.

    ``client`` has by op the client of each request, and ``delivered_ns`` gets the instant at which the data of an op
    arrived. ``edges`` has by op the ops that send it data, each with its bytes by request, None where a retrieval
    finds them. ``moved_bytes`` are the bytes that moved.
    """

    def __init__(
        self,
        program: Program,
        engine: Engine,
        client: list[list[int]],
        delivered_ns: list[Column],
        shipments: Shipments,
    ) -> None:
        self._engine = engine
        self._ops = program.ops
        self._requests = count = len(program.requests)
        self._client = client
        self._delivered_ns = delivered_ns
        self._shipments = shipments
        self._pools: list[PoolClients] = []
        self._context_bytes: Callable[[int, int], int] = lambda op, request: 0
        # Where a retrieval is one that knows them: the bytes of contexts by task, and its first task.
        self.context_sizes: Callable[[int], tuple[list[int], int] | None] = lambda op: None
        self.edges = [
            [(edge.source, None if edge.bytes is None else edge.bytes.tolist()) for edge in op.data]
            for op in program.ops
        ]
        self._hops: list[Hop | None] = [None for _ in program.ops]  # of ops that need known data alone
        # By op · requests + request: transfers of its data under way, where they are several.
        self._coming: dict[int, int] = {}
        self.moved_bytes = [column(count if op.data else 0, 0) for op in program.ops]

    def attach(self, pools: list[PoolClients], context_bytes: Callable[[int, int], int]) -> None:
        """Set the pools by number; ``context_bytes(op, request)`` returns how much a retrieval has found."""
        self._pools = pools
        self._context_bytes = context_bytes

    def fetch(self, op: int, request: int, now_ns: int) -> bool:
        """Send what earlier ops have left for an op to its client; return whether it has to wait for any of it."""
        topology = self._shipments.topology
        assert topology is not None
        here = self._pools[self._ops[op].pool].first_number + self._client[op][request]
        coming = moved = 0
        for source, sizes in self.edges[op]:
            sender = self._client[source][request]
            size = (
                0 if sender < 0 else self._context_bytes(source, request) if sizes is None else sizes[request]
            )
            if not size:
                continue
            path = topology.data_path(self._pools[self._ops[source].pool].first_number + sender, here)
            if path is not None:
                coming, moved = coming + 1, moved + size
                self._shipments.send(path, size, op, request, now_ns, DATA)
        if coming:
            if coming > 1:
                self._coming[op * self._requests + request] = coming
            self.moved_bytes[op][request] = moved
        return coming > 0

    def known_data(self, hop: Hop) -> list[tuple[list[int], int, list[int], int]]:
        """Return ``Hop.data`` of an op; empty where the bytes of its data are in no list."""
        known = []
        for source, sizes in self.edges[hop.op]:
            column = self.context_sizes(source) if sizes is None else (sizes, 0)
            if column is None:
                return []
            known.append((self._client[source], self._pools[self._ops[source].pool].first_number, *column))
        self._hops[hop.op] = hop
        return known

    def fetch_known(self, hop: Hop, request: int, now_ns: int) -> bool:
        """The same as ``fetch`` for data whose bytes are known, without what it need not look up."""
        shipments = self._shipments
        topology, fabric = shipments.topology, shipments.fabric
        assert topology is not None
        assert fabric is not None
        here = hop.first_number + hop.client[request]
        task = hop.op * self._requests + request
        payload = shipments.number(task, DATA) if shipments.any_lost else task << 2 | DATA
        coming = moved = 0
        for senders, first_number, sizes, first in hop.data:
            sender = senders[request]
            if sender < 0:
                continue
            size = sizes[first + request]
            if not size:
                continue
            path = topology.data_path(first_number + sender, here)
            if path is not None:
                coming, moved = coming + 1, moved + size
                fabric.send(path, size, payload, now_ns)
        if not coming:
            return False
        shipments.sent()
        if coming > 1:
            self._coming[task] = coming
        self.moved_bytes[hop.op][request] = moved
        return True

    def pass_known(self, hop: Hop, request: int, now_ns: int) -> int:
        """The same as ``fetch_known`` for what arrives before anything else happens; return when, or −1."""
        topology, fabric = self._shipments.topology, self._shipments.fabric
        if len(hop.data) != 1 or topology is None or fabric is None:
            return -1
        senders, first_number, sizes, first = hop.data[0]
        sender, size = senders[request], sizes[first + request]
        if sender < 0 or not size:
            return -1
        path = topology.data_path(first_number + sender, hop.first_number + hop.client[request])
        if path is None:
            return -1
        at_ns = fabric.pass_alone(path, size, now_ns, self._engine.quiet_ns)
        if at_ns >= 0:
            self.moved_bytes[hop.op][request] = size
            self._delivered_ns[hop.op][request] = at_ns
        return at_ns

    def arrived(self, task: int, now_ns: int) -> bool:
        """Note that data for a task (op · requests + request) came; return whether that was all that it needs.

        A task that needs known data alone is submitted at once, and nothing is left to do.
        """
        coming = self._coming.get(task, 1) - 1
        if coming:
            self._coming[task] = coming
            return False
        self._coming.pop(task, None)
        op, request = divmod(task, self._requests)
        hop = self._hops[op]
        if hop is None:
            return True
        self._delivered_ns[op][request] = now_ns
        chosen = hop.client[request]
        at_ns = hop.submit[chosen](hop.first_task + request, now_ns)
        if hop.notify:
            self._engine.wake(hop.ranks[chosen], at_ns)
        return False

    def forget(self, op: int, request: int) -> None:
        """Forget what is on its way to an op of a request."""
        self._coming.pop(op * self._requests + request, None)
