"""Links between clients, and memories of hosts that several clients share."""

from __future__ import annotations

from typing import Literal

from hermes_flow.program.quick_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class HostMemory:
    """The memory of a host, which its clients share; or, by its ``level``, a link between host and devices."""

    name: str
    bytes_per_ns: float
    level: Literal["memory", "host link"] = "memory"


@dataclass(frozen=True, slots=True)
class NetworkLevel:
    """The fraction of the line rate and the latency of links of one level."""

    efficiency: float
    latency_ns: int
    bytes_per_ns: float = 0.0  # of a rack's link to the datacenter; the others belong to the clients


@dataclass(frozen=True, slots=True)
class LinkChange:
    """From ``at_ns`` on, links give ``share`` of their rate: those of a client to all others, or those of a rack.

    Clients are numbered over all pools.
    """

    at_ns: int
    of: Literal["client", "rack"]
    number: int
    share: float


@dataclass(frozen=True, slots=True)
class Network:
    """The places of the clients and the speeds of their links.

    ``nodes`` has the node of each client, numbered over all pools, and ``racks`` the rack of each node. ``changes``
    are what links give less of or more again, in order of time.
    """

    name: str
    clients: tuple[str, ...]
    nodes: tuple[int, ...]
    racks: tuple[int, ...]
    node_bytes_per_ns: tuple[float, ...]
    rack_bytes_per_ns: tuple[float, ...]
    node: NetworkLevel
    rack: NetworkLevel
    datacenter: NetworkLevel
    changes: tuple[LinkChange, ...] = ()
