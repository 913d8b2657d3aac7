"""The layers of a model that mix tokens in another way than its own attention: windows, linear attention, Mamba.

A model names each kind of them in ``mixers``, with the number of its layers. All but attention keep a state of
constant size for each sequence in place of KV that grows.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from hermes_flow.config.quantities import Count, CountOrZero, Width
from hermes_flow.program.quick_dataclass import dataclass

StatePrecision: TypeAlias = Literal["bf16", "fp32"]


@dataclass(frozen=True, slots=True)
class AttentionLayers:
    """Attention of another shape than the model's own, as in Gemma 4 and Nemotron Super."""

    kind: Literal["attention"]
    """Attention with heads of its own."""
    layers: CountOrZero
    """The number of these layers."""
    heads: Count
    """The number of attention heads."""
    kv_heads: Count
    """The number of heads that keys and values have."""
    head_dim: Width
    """The width of one head of queries and keys."""
    value_head_dim: Width | None = None
    """The width of one value head; null takes that of the keys."""
    window: Width | None = None
    """The tokens that these layers look back over; null for the whole context."""
    separate_values: bool = True
    """False where values are projected together with the keys, so that there is no matrix of them."""
    own_kv: bool = True
    """False where these layers read the KV cache of others and have no keys and values of their own."""
    output_gate: bool = False
    """True where a gate as wide as the queries scales the output of the heads."""


@dataclass(frozen=True, slots=True)
class GatedDeltaNetLayers:
    """Linear attention by the gated delta rule, as in Qwen3-Next and Qwen3.5 (arXiv 2412.06464)."""

    kind: Literal["gated_delta_net"]
    """Linear attention by the gated delta rule."""
    layers: CountOrZero
    """The number of these layers."""
    key_heads: Count
    """The number of query and key heads."""
    value_heads: Count
    """The number of value heads, each with a state."""
    key_head_dim: Width
    """The width of one key head."""
    value_head_dim: Width
    """The width of one value head."""
    convolution: Width = 4
    """The tokens that the causal convolution before it looks at."""
    state_precision: StatePrecision = "bf16"
    """The precision of the state of a sequence."""


@dataclass(frozen=True, slots=True)
class KimiDeltaLayers:
    """Kimi delta attention, the gated delta rule with a decay for each channel (arXiv 2510.26692)."""

    kind: Literal["kimi_delta_attention"]
    """Linear attention by the delta rule with a decay for each channel."""
    layers: CountOrZero
    """The number of these layers."""
    heads: Count
    """The number of heads, each with a state."""
    head_dim: Width
    """The width of one head of queries, keys and values."""
    convolution: Width = 4
    """The tokens that the causal convolution before it looks at."""
    state_precision: StatePrecision = "fp32"
    """The precision of the state of a sequence."""


@dataclass(frozen=True, slots=True)
class Mamba2Layers:
    """Mamba-2, a state space with one decay for each head (arXiv 2405.21060), as in Nemotron-H and Granite 4."""

    kind: Literal["mamba2"]
    """Mamba-2."""
    layers: CountOrZero
    """The number of these layers."""
    heads: Count
    """The number of heads, each with a state."""
    head_dim: Width
    """The width of one head."""
    state_size: Width
    """The width of the state of each channel."""
    groups: Count = 1
    """The groups of heads that share their B and C projections."""
    convolution: Width = 4
    """The tokens that the causal convolution before it looks at."""
    state_precision: StatePrecision = "bf16"
    """The precision of the state of a sequence."""


@dataclass(frozen=True, slots=True)
class MambaLayers:
    """Mamba, a selective state space (arXiv 2312.00752), as in Jamba and Falcon-Mamba."""

    kind: Literal["mamba"]
    """Mamba of the first version."""
    layers: CountOrZero
    """The number of these layers."""
    inner_size: Width
    """The number of channels, each with a state."""
    state_size: Width
    """The width of the state of each channel."""
    time_step_rank: Width
    """The rank of the projection that gives the time steps."""
    convolution: Width = 4
    """The tokens that the causal convolution before it looks at."""
    state_precision: StatePrecision = "bf16"
    """The precision of the state of a sequence."""


@dataclass(frozen=True, slots=True)
class LightningLayers:
    """Lightning attention, linear attention with a fixed decay (arXiv 2501.08313), as in MiniMax-01 and M1."""

    kind: Literal["lightning_attention"]
    """Linear attention with a fixed decay."""
    layers: CountOrZero
    """The number of these layers."""
    heads: Count
    """The number of heads, each with a state."""
    head_dim: Width
    """The width of one head."""
    state_precision: StatePrecision = "fp32"
    """The precision of the state of a sequence."""


@dataclass(frozen=True, slots=True)
class ConvolutionLayers:
    """Gated short convolutions, as in LFM2."""

    kind: Literal["short_convolution"]
    """A gated convolution over a few tokens."""
    layers: CountOrZero
    """The number of these layers."""
    width: Width
    """The number of channels."""
    convolution: Width = 3
    """The tokens that the convolution looks at."""
    state_precision: StatePrecision = "bf16"
    """The precision of the state of a sequence."""


@dataclass(frozen=True, slots=True)
class LinearLayers:
    """One matrix in place of attention, which mixes no tokens (``replace_with_linear`` of Nemotron Super)."""

    kind: Literal["linear"]
    """One matrix."""
    layers: CountOrZero
    """The number of these layers."""


StateLayers: TypeAlias = (
    GatedDeltaNetLayers | KimiDeltaLayers | Mamba2Layers | MambaLayers | LightningLayers | ConvolutionLayers
)
Mixer: TypeAlias = (
    AttentionLayers
    | GatedDeltaNetLayers
    | KimiDeltaLayers
    | Mamba2Layers
    | MambaLayers
    | LightningLayers
    | ConvolutionLayers
    | LinearLayers
)
