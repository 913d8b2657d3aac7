"""The cost of a batch of searches: bytes, operations and seconds, and its demand on shared memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hermes_flow.cost.retrieval.host import Host
from hermes_flow.cost.retrieval.index import Index
from hermes_flow.program.units import S_PER_US


@dataclass(frozen=True, slots=True)
class Work:
    """Bytes read and operations done, whatever the host."""

    bytes: float
    flops: float


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of a search: ``busy_s`` on its cores without a bandwidth limit, and ``bytes`` of memory."""

    name: str
    busy_s: float
    bytes: float

    def seconds(self, bandwidth: float) -> float:
        """Return max(compute, bytes/bandwidth), with ``bandwidth`` in bytes/s."""
        return max(self.busy_s, self.bytes / bandwidth) if self.bytes else self.busy_s


@dataclass(frozen=True, slots=True)
class Demand:
    """The demand of one batch on a host: ``overhead_s``, then its phases one after another."""

    overhead_s: float
    phases: tuple[Phase, ...]

    @property
    def busy_s(self) -> float:
        """The shortest possible time in seconds, with all the bandwidth that its cores can use."""
        return self.overhead_s + math.fsum(phase.busy_s for phase in self.phases)

    @property
    def bytes(self) -> float:
        """Bytes from memory."""
        return math.fsum(phase.bytes for phase in self.phases)

    @property
    def peak_bandwidth(self) -> float:
        """The largest bandwidth that it uses at any time, in bytes/s."""
        return max((phase.bytes / phase.busy_s for phase in self.phases if phase.busy_s), default=0.0)

    def seconds(self, bandwidth: float) -> float:
        """Return the time with ``bandwidth`` bytes/s of the memory from beginning to end."""
        return self.overhead_s + math.fsum(phase.seconds(bandwidth) for phase in self.phases)


def work(index: Index, batch: int) -> Work:
    """Return the bytes and operations of ``batch`` queries; data that all of them read is counted once."""
    parts = index.operators()
    read = math.fsum(part.bytes * (1 if part.shared else batch) for part in parts)
    return Work(read, batch * math.fsum(part.flops for part in parts))


def demand(index: Index, batch: int, host: Host, cores: int | None = None) -> Demand:
    """Return the demand of ``batch`` queries on ``cores`` of the host (null: all); raises ConfigError for nulls.

    ``inter_query``: the core with the most queries decides. ``intra_query``: the work is split evenly, and each
    scan waits once for all cores.
    """
    cores = host.cores if cores is None else cores
    fit = host.efficiency
    used = min(cores, batch) if index.parallel == "inter_query" else cores
    rounds = math.ceil(batch / used) if index.parallel == "inter_query" else batch / used
    wait_s = fit.sync_us * S_PER_US * used if used > 1 else 0.0
    parts = index.operators()
    phases = []
    for part in parts:
        busy_s = rounds * part.core_s(host, batch)
        if part.calls and index.parallel == "intra_query":
            busy_s += wait_s
        phases.append(Phase(part.name, busy_s, part.memory_bytes(host, batch)))
    overhead_s = (sum(part.calls for part in parts) * fit.call_us + rounds * fit.query_us) * S_PER_US
    if index.parallel == "inter_query":
        overhead_s += wait_s
    return Demand(overhead_s, tuple(phases))


def seconds(
    index: Index, batch: int, host: Host, cores: int | None = None, bandwidth: float | None = None
) -> float:
    """Return the seconds of ``batch`` queries on ``cores`` with ``bandwidth`` bytes/s (null: all the host has)."""
    given = host.usable_bandwidth if bandwidth is None else bandwidth
    return demand(index, batch, host, cores).seconds(given)
