"""The topology of the network: the links between two clients, by device, node, rack and datacenter."""

from __future__ import annotations

from collections.abc import Sequence

from hermes_flow.program.network import HostMemory, Network
from hermes_flow.program.quick_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Path:
    """The links a transfer takes, as indices into ``Topology.bytes_per_ns``, and its latency."""

    links: tuple[int, ...]
    latency_ns: int


class Topology:
    """The links of the network: one out and one in for each client at node and rack level, and two for each rack.

    Within a node a transfer takes the sender's node link out and the receiver's in; within a rack their rack
    links; between racks also the sender's rack up and the receiver's down.
    """

    def __init__(self, network: Network | None, hosts: Sequence[HostMemory] = ()) -> None:
        self._network = network
        self._hosts = hosts
        self.bytes_per_ns: list[float] = []
        self.names: list[str] = []
        self.levels: list[str] = []
        self._links: dict[tuple[str, int], int] = {}
        self._data_paths: dict[tuple[int, int], Path | None] = {}

    def path(self, source: int, target: int) -> Path:
        """Return the path between two clients, numbered over all pools; empty where they are the same."""
        if source == target:
            return Path((), 0)
        network = self._network
        assert network is not None
        here, there = network.nodes[source], network.nodes[target]
        if here == there:
            ends = (self._link("node out", source), self._link("node in", target))
            return Path(ends, network.node.latency_ns)
        ends = (self._link("rack out", source), self._link("rack in", target))
        rack, other = network.racks[here], network.racks[there]
        if rack == other:
            return Path(ends, network.rack.latency_ns)
        between = (self._link("datacenter up", rack), self._link("datacenter down", other))
        return Path((ends[0], *between, ends[1]), network.datacenter.latency_ns)

    def data_path(self, source: int, target: int) -> Path | None:
        """Return the path of data other than KV between two clients, None where they stand on one node.

        Links whose rate is not known hold nothing up.
        """
        if (source, target) not in self._data_paths:
            self._data_paths[source, target] = self._find_data_path(source, target)
        return self._data_paths[source, target]

    def _find_data_path(self, source: int, target: int) -> Path | None:
        network = self._network
        assert network is not None
        if network.nodes[source] == network.nodes[target]:
            return None
        path = self.path(source, target)
        return Path(tuple(link for link in path.links if self.bytes_per_ns[link]), path.latency_ns)

    def memory_path(self, *hosts: int) -> Path:
        """Return the path through memories of hosts and their links."""
        for host in hosts:
            if ("memory", host) not in self._links:
                memory = self._hosts[host]
                name = f"{memory.name} {memory.level}" if memory.level == "memory" else memory.name
                self._links["memory", host] = self._add(memory.bytes_per_ns, name, memory.level)
        return Path(tuple(self._links["memory", host] for host in hosts), 0)

    def alone_ns(self, path: Path, size: int) -> int:
        """Return the time for ``size`` bytes if nothing else moves, latency included."""
        if not path.links:
            return path.latency_ns
        return path.latency_ns + round(size / min(self.bytes_per_ns[link] for link in path.links))

    def links_of(self, of: str, number: int) -> list[int]:
        """Return the links of a ``client`` to all others, or of a ``rack`` to other racks."""
        up_and_down = ("datacenter up", "datacenter down")
        ends = ("node out", "node in", "rack out", "rack in") if of == "client" else up_and_down
        return [self._link(kind, number) for kind in ends]

    def _link(self, kind: str, owner: int) -> int:
        key = (kind, owner)
        if key not in self._links:
            network = self._network
            assert network is not None
            level = kind.split()[0]
            if level == "datacenter":
                rate, name = network.datacenter.bytes_per_ns, f"rack {owner} {kind}"
            else:
                own = network.node_bytes_per_ns if level == "node" else network.rack_bytes_per_ns
                reached = network.node if level == "node" else network.rack
                rate, name = own[owner] * reached.efficiency, f"{network.clients[owner]} {kind}"
            self._links[key] = self._add(rate, name, level)
        return self._links[key]

    def _add(self, bytes_per_ns: float, name: str, level: str) -> int:
        self.bytes_per_ns.append(bytes_per_ns)
        self.names.append(name)
        self.levels.append(level)
        return len(self.names) - 1
