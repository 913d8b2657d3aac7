"""The keys of a memory pool and its tiers, which hold the KV of past contexts."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from hermes_flow.config.quantities import MB, USD, Count, GBPerSecond, Microseconds, PositiveGB
from hermes_flow.config.schema import Hardware
from hermes_flow.program.quick_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class TierBuffer:
    """A buffer for small reads: a block of up to ``size_mb`` arrives at ``gb_s``.

    With ``read_ahead`` so does the head of a larger block, which the device has fetched before it is asked for. A
    cache has it false: a block that it cannot hold washes it out.
    """

    size_mb: MB
    gb_s: GBPerSecond
    read_ahead: bool = False


@dataclass(frozen=True, slots=True)
class MemoryTier:
    """One tier: ``lookup_us`` to learn whether it has a context, ``latency_us`` until the first byte of a read.

    ``shared_by`` clients of the pool, counted from the first on, share one such memory, its room and its bandwidth.
    A tier ``in_host`` is part of its machine's memory, whose bandwidth it shares with what else runs there.
    """

    capacity_gb: PositiveGB
    """The room of one such memory."""
    bandwidth_gb_s: GBPerSecond
    """The bandwidth of one such memory."""
    lookup_us: Microseconds = 0.0
    latency_us: Microseconds = 0.0
    buffer: TierBuffer | None = None
    """What makes small reads faster; null for none."""
    shared_by: Count = 1
    in_host: bool = False


@dataclass(frozen=True, slots=True)
class RemoteTier:
    """The tier ``tier`` of all other stores, which a store looks into where its own tiers do not have a context.

    The network between them counts by ``lookup_us`` and ``latency_us`` alone.
    """

    tier: str
    """The name of a tier of the pool."""
    lookup_us: Microseconds = 0.0
    """The time to learn whether another store has a context, and which."""
    latency_us: Microseconds = 0.0
    """The time until the first byte of a read, in addition to the tier's own."""


@dataclass(frozen=True, slots=True)
class MemoryPool:
    """``count`` identical stores of KV, each of several ``tiers``: they are looked into in the order they are given.

    With ``write_back`` the contexts of finished requests are kept in the first tier. ``remote`` is a tier of the
    other stores. ``beside`` names an LLM pool of as many clients: what a store has found is prefilled on the client
    beside it. With ``host_link`` it gets there, and back, over the host links of that client's devices, which
    ``host_link_shared_by`` clients, counted from the first on, have in common. ``host`` names a pool on whose
    machines the stores are. ``usd_per_hour`` is the price of one store (null: of its hardware).
    """

    absent: ClassVar[dict[str, str]] = dict.fromkeys(
        ("autoscale", "failures"),
        "a store keeps contents, and does not start, stop or fail; leave the key out",
    )
    devices: ClassVar[int] = 0  # accelerators of one client
    model_name: ClassVar[None] = None
    kind: Literal["memory"]
    serves: tuple[str, ...]
    """The kinds of stages that the pool serves."""
    hardware: Hardware
    """The machine of one store."""
    tiers: dict[str, MemoryTier]
    count: Count = 1
    site: dict[str, Count] | str | None = None
    """Where the clients stand, with ``cluster.sites``: a site, or the number of clients by site; null: ``count`` at
    every site, and where the pool that it stands ``beside`` is.
    """
    routing: dict[str, Any] | str | None = None
    """How tasks choose among the clients: the name of a routing policy, or a mapping with its settings. Null is as
    ``cluster.routing``.
    """
    if_needed: bool = False
    """True leaves the pool out where other pools serve all that it would."""
    write_back: bool = True
    begins_with: Literal["nothing", "most_asked", "spread"] = "nothing"
    """What the stores hold when the run begins, of a retrieval with ``contexts``: each store the ``most_asked``, as
    far as its tiers have room; or all are ``spread`` over the stores, each in one of them.
    """
    remote: RemoteTier | None = None
    contention: bool = True
    """Whether reads and writes of a tier share its bandwidth; false gives every read all of it, as a formula does."""
    beside: str | None = None
    host_link: bool = False
    host_link_shared_by: Count = 1
    host: str | None = None
    usd_per_hour: USD | None = None
