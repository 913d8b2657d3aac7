"""Keys of a memory pool's tiers: where the KV of past contexts lies, and how fast it is read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TierBuffer:
    """What makes small reads faster than the tier's bandwidth: a block of up to ``size_mb`` comes at ``gb_s``.

    With ``read_ahead`` so does the head of a larger block, which the device has fetched before it is asked for. A
    cache has it false: a block that it cannot hold washes it out.
    """

    size_mb: float
    gb_s: float
    read_ahead: bool = False


@dataclass(frozen=True, slots=True)
class MemoryTier:
    """One tier: ``lookup_us`` to learn whether it has a context, ``latency_us`` until the first byte of a read.

    ``shared_by`` clients of the pool, counted from the first on, share one such memory, its room and its bandwidth.
    A tier ``in_host`` is part of its machine's memory, whose bandwidth it shares with what else runs there.
    """

    capacity_gb: float
    bandwidth_gb_s: float
    lookup_us: float = 0.0
    latency_us: float = 0.0
    buffer: TierBuffer | None = None
    shared_by: int = 1
    in_host: bool = False
