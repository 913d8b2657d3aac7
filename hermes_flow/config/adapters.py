"""The keys of LoRA adapters: those that an LLM client can serve, and those that requests ask for."""

from __future__ import annotations

from dataclasses import field
from typing import Literal

from hermes_flow.config.quantities import Count, Exponent, GBPerSecond, Many, Share, Width
from hermes_flow.program.quick_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Adapters:
    """LoRA adapters on an LLM client: what one of them is, and how many have a place.

    An adapter of ``rank`` r adds two matrices to each target matrix, in × r and r × out, in bf16. The engine sets
    memory aside for ``slots`` adapters on every client.
    """

    slots: Count
    """The adapters that have a place on the GPUs of a client at once, and so the most in one step."""
    rank: Width = 16
    """The rank of the adapters; the highest one, where ``ranks`` has others (max_lora_rank of vLLM)."""
    ranks: dict[str, Width] = field(default_factory=dict)
    """The ranks of single adapters by name, as ``{adapter_3: 8}``; all others have ``rank``. Places and matrices are
    those of ``rank`` for all, as vLLM pads them; a smaller adapter is read and copied in less time.
    """
    targets: tuple[Literal["attention", "mlp"], ...] = ("attention", "mlp")
    """The modules whose matrices have adapters: all of attention, or of the dense MLPs."""
    host_slots: Count | None = None
    """The adapters that have a place in the host memory of a client; null: all of them, from the beginning."""
    disk_gb_s: GBPerSecond | None = None
    """The rate at which an adapter is read that is not in host memory; it needs ``host_slots``."""


@dataclass(frozen=True, slots=True)
class DrawnAdapters:
    """The adapters that drawn requests ask for: ``count`` of them, the n-th as likely as 1/n^skew."""

    count: Many
    """The number of adapters."""
    skew: Exponent = 1.0
    """The n-th adapter is as likely as 1/n^skew; 0 makes all alike."""
    base_share: Share = 0.0
    """The share of requests, or of sessions, that ask for the model without any adapter."""
