"""The specification of KV retrieval: tiers of memory, the stores that read them, and their lookups."""

from __future__ import annotations

from typing import ClassVar

from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.program.units import Ints

REMOTE = "remote"  # the name under which reads of other stores are reported


@dataclass(frozen=True, slots=True)
class TierSpec:
    """One tier: bytes, bytes/ns and ns. ``memories`` has, for each client of the pool, its place among the hosts.

    ``buffer_bytes`` of a read come at ``buffer_bytes_per_ns``: all of a block that fits, and with ``read_ahead`` the
    head of a larger one.
    """

    name: str
    capacity_bytes: int
    bytes_per_ns: float
    lookup_ns: int = 0
    latency_ns: int = 0
    buffer_bytes: int = 0
    buffer_bytes_per_ns: float = 0.0
    read_ahead: bool = False
    shared_by: int = 1
    in_host: bool = False
    memories: tuple[int, ...] = ()

    def read_parts(self, size: int) -> tuple[int, int]:
        """Return the ns that a read of ``size`` bytes takes before it streams, and the bytes it streams then."""
        if size <= self.buffer_bytes:
            return round(size / self.buffer_bytes_per_ns), 0
        if not self.read_ahead:
            return self.latency_ns, size
        head_ns = round(self.buffer_bytes / self.buffer_bytes_per_ns)
        return self.latency_ns + head_ns, size - self.buffer_bytes

    def first_byte_ns(self, size: int) -> int:
        """Return the ns from asking until the first byte of a read of ``size`` bytes, while nobody else reads."""
        return self.lookup_ns + (self.latency_ns if size > self.buffer_bytes else 0)

    def read_ns(self, size: int) -> int:
        """Return how long a read of ``size`` bytes takes while nobody else reads."""
        before_ns, streamed = self.read_parts(size)
        return before_ns + round(streamed / self.bytes_per_ns)


@dataclass(frozen=True, slots=True)
class RemoteSpec:
    """Tier number ``of`` in the other stores of a pool; ``tier`` has the times that it takes to read it from afar."""

    of: int
    tier: TierSpec


@dataclass(frozen=True, slots=True)
class MemoryClientSpec:
    """One store of KV: its tiers, the fastest first. With ``write_back`` it keeps contexts that were computed.

    ``remote`` is a tier of the other stores (None: the store reads its own tiers only).
    Without ``contention`` every read has the whole bandwidth of its tier.

    For each client of the pool, ``hosts`` is the memory that its tiers ``in_host`` are part of, ``links`` those to
    the devices and back, as places among the program's hosts; empty where nobody shares the one, or the others do
    not count. ``link_bytes_per_ns`` is the rate of such a link, which ``link_shared_by`` clients have in common.
    """

    kind: ClassVar[str] = "memory"
    model: ClassVar[None] = None
    kv_blocks: ClassVar[None] = None
    tiers: tuple[TierSpec, ...]
    write_back: bool = True
    begins_with: str = "nothing"  # what it holds at first (pools/memory/first_contents.py)
    remote: RemoteSpec | None = None
    contention: bool = True
    link_bytes_per_ns: float = 0.0
    link_shared_by: int = 1
    hosts: tuple[int, ...] = ()
    links: tuple[tuple[int, int], ...] = ()
    devices: ClassVar[int] = 0

    def remote_memories(self, client: int) -> tuple[int, ...]:
        """Return the memories that only other stores than a client's own have as their tier, in order."""
        if self.remote is None:
            return ()
        memories = self.tiers[self.remote.of].memories
        return tuple(place for place in dict.fromkeys(memories) if place != memories[client])

    def remote_reads(self, client: int) -> tuple[tuple[int, ...], ...]:
        """Return what reads of other stores take bandwidth of, one for each of ``remote_memories``."""
        links = self.links[client][:1] if self.links else ()
        return tuple((place, *links) for place in self.remote_memories(client))

    def reads(self, tier: TierSpec, client: int) -> tuple[int, ...]:
        """Return what a read of a client's tier takes bandwidth of, as places among the program's hosts."""
        return (*self._memories(tier, client), *(self.links[client][:1] if self.links else ()))

    def writes(self, tier: TierSpec, client: int) -> tuple[int, ...]:
        """Return what writing to a client's tier takes bandwidth of, as places among the program's hosts."""
        return (*self._memories(tier, client), *(self.links[client][1:] if self.links else ()))

    def _memories(self, tier: TierSpec, client: int) -> tuple[int, ...]:
        shared = (self.hosts[client],) if tier.in_host and self.hosts else ()
        return (tier.memories[client], *shared)


@dataclass(frozen=True, slots=True)
class KVLookup:
    """The lookups of a retrieval: contexts of ``tokens``, ``bytes`` of KV; columns by request.

    Where it lies is decided in one of three ways. ``tier`` (−1: nowhere) was drawn. Or only what is expected is
    known: ``shares`` of the requests hit each tier, so each takes ``expected_ns`` and has ``expected_tokens`` loaded.
    Or ``key`` names the context, and it is found where it was kept; when the request has finished it is kept with
    ``kept_tokens``, which are ``kept_bytes``. ``all_tokens`` and ``all_bytes`` are those of every context by its
    key, where stores hold some of them when the run begins. Where it is not ``added`` to the prompt, it is what the
    session has said so far, which the prompt begins with anyway.
    """

    tokens: Ints
    bytes: Ints
    tier: Ints | None = None
    shares: tuple[float, ...] = ()
    expected_ns: Ints | None = None
    expected_tokens: Ints | None = None
    key: Ints | None = None
    kept_tokens: Ints | None = None
    kept_bytes: Ints | None = None
    added: bool = True
    all_tokens: Ints | None = None
    all_bytes: Ints | None = None
