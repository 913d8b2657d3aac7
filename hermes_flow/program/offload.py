"""The specification of offloading: the tiers below the KV cache of an LLM client, and the link to them."""

from __future__ import annotations

from hermes_flow.program.kv_store import TierSpec
from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.program.units import NEVER


@dataclass(frozen=True, slots=True)
class FetchSpec:
    """When SGLang reads from the drive behind the host: at least ``least_tokens`` that are found there.

    ``policy`` is what a request does at its turn: it goes on with what has come (``best_effort``), waits for all
    (``wait_complete``), or waits for a time that grows with its tokens (``timeout``). ``most_tokens`` are looked for
    at a time.
    """

    policy: str
    least_tokens: int
    most_tokens: int


@dataclass(frozen=True, slots=True)
class OffloadSpec:
    """The tiers of one LLM client, the first of which takes what leaves the devices.

    A block has ``block_bytes`` on all devices together, and the links between host and devices move
    ``link_bytes_per_ns`` in one direction. ``writes_computed`` writes blocks as they are computed, otherwise they are
    written as they are evicted; ``writes_reused`` (SGLang) writes what is given to the tree a second time. With
    ``prefetch`` a load begins as a request comes. SGLang's loads run along with the step, whose model has ``layers``.
    ``fetch`` is how it reads from the drive behind the host; None without one.

    ``survives`` tells of each tier whether it keeps its blocks as the client fails.

    ``gap`` is what becomes of the blocks of a turn while a tool runs before the next one: they stay in the prefix
    ``cache``, or it ``keep``s them until then, or for ``ttl_ps``, or moves them to the tiers (``offload``), or
    ``drop``s them.
    """

    tiers: tuple[TierSpec, ...]
    block_bytes: int
    link_bytes_per_ns: float
    writes_computed: bool = False
    prefetch: bool = True
    gap: str = "cache"
    ttl_ps: int = NEVER
    survives: tuple[bool, ...] = ()
    writes_reused: bool = False
    layers: int = 1
    fetch: FetchSpec | None = None

    def blocks_in(self, tier: TierSpec) -> int:
        """Return how many blocks fit into a tier."""
        return tier.capacity_bytes // self.block_bytes
