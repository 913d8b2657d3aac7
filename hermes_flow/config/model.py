"""The shape and the precision of a model, as its makers publish them."""

from __future__ import annotations

from dataclasses import field
from typing import Literal

from hermes_flow.config.mixers import Mixer
from hermes_flow.config.quantities import (
    Billions,
    BillionsOrZero,
    Count,
    CountOrZero,
    Exponent,
    PositiveTokens,
    Width,
)
from hermes_flow.program.quick_dataclass import dataclass

Precision = Literal["bf16", "fp8", "int8", "int4", "mxfp4", "nvfp4"]
ExpertKernels = Literal["default", "marlin", "deepgemm", "cutlass"]
RouterPrecision = Literal["bf16", "fp32", "tf32"]


@dataclass(frozen=True, slots=True)
class ModulePrecision:
    """The precision of one module, or of some of its matrices, where it differs from that of the model."""

    module: str
    """The module: ``attention``, ``mlp``, ``experts``, ``shared_experts``, ``output_head``, or a name from ``mixers``
    or ``mlps``.
    """
    weights: Precision
    """The precision of these weights."""
    activations: Precision = "bf16"
    """The precision of the activations that they are multiplied with."""
    layers: CountOrZero | None = None
    """In how many of the module's layers it is so; null for all. Later entries are about the layers that are left."""
    matrices: tuple[str, ...] = ()
    """The matrices of the module that it is about; empty for all. The error for a wrong name lists the names."""


@dataclass(frozen=True, slots=True)
class ModelPrecision:
    """Bits of weights, KV cache and activations."""

    weights: Precision = "bf16"
    """The precision of the weights."""
    kv_cache: Precision = "bf16"
    """The precision of the KV cache."""
    activations: Precision = "bf16"
    """The precision of the activations, in which matrix products compute."""
    unquantized: tuple[Literal["attention", "mlp", "shared_experts"], ...] = ()
    """The modules whose weights stay bf16 in all layers: attention, dense MLPs, shared experts."""
    unquantized_layers: CountOrZero = 0
    """The number of layers with a dense MLP whose weights all stay bf16, as a first and a last one."""
    group_size: Width | None = None
    """How many weights of int4 or int8 share a scale of 16 bits; null counts no scales."""
    fp8_blocks: bool = False
    """Whether weights in fp8 are scaled in blocks of 128 rows and columns, and their activations in groups of 128.
    Engines have kernels of their own for these.
    """
    modules: dict[str, ModulePrecision] = field(default_factory=dict)
    """Modules with a precision of their own, under any names."""


@dataclass(frozen=True, slots=True)
class LatentAttention:
    """Multi-head latent attention (DeepSeek-V2): one compressed KV vector for all heads."""

    q_lora_rank: Width | None
    """The rank of the compressed query; null where the query is not compressed."""
    kv_lora_rank: Width
    """The rank of the compressed keys and values."""
    rope_head_dim: Width
    """The part of a head that has rotary positions."""
    nope_head_dim: Width
    """The part of a head that has no positions."""
    v_head_dim: Width
    """The width of one value head."""


@dataclass(frozen=True, slots=True)
class SparseAttention:
    """DeepSeek sparse attention: an indexer scores all tokens, and attention reads the best of them."""

    heads: Count
    """The number of heads of the indexer."""
    head_dim: Width
    """The width of one head of the indexer."""
    tokens: PositiveTokens
    """The tokens that attention reads."""
    layers: CountOrZero | None = None
    """The number of layers with an indexer of their own; null for all. The others take the tokens of one before."""


@dataclass(frozen=True, slots=True)
class Experts:
    """A mixture of experts in place of the MLP of all but the first ``dense_layers`` layers."""

    count: Count
    """The number of experts in a layer."""
    per_token: Count
    """The number of experts that each token goes to."""
    intermediate_size: Width
    """The width of one expert."""
    shared: CountOrZero = 0
    """The number of experts that all tokens go to."""
    dense_layers: CountOrZero = 0
    """The number of layers with a dense MLP."""
    layers: CountOrZero | None = None
    """The number of layers with experts; null for all but ``dense_layers``."""
    shared_intermediate_size: Width | None = None
    """The width of one shared expert; null takes that of the others."""
    shared_gate: bool = False
    """True where a gate of one value for each token scales what the shared experts give."""
    latent_size: Width | None = None
    """The width to which hidden states are projected before the routed experts; null where they are not."""
    groups: Count = 1
    """The number of groups of experts (``n_group`` of a config.json): the first experts are the first group, and so
    on. It counts where devices hold experts whole: tokens choose those of a group together.
    """
    groups_per_token: Count = 1
    """The number of groups from which the experts of one token come (``topk_group``). That of all groups: any."""
    routing_skew: Exponent = 0.6
    """How unevenly tokens choose experts: the i-th most popular one is chosen in proportion to 1 / i^routing_skew. 0
    stands for experts that are chosen alike often, and for engines that spread copies of popular ones (EPLB).
    """
    router_precision: RouterPrecision = "bf16"
    """The precision in which engines compute the product that chooses the experts. ``tf32`` is fp32 on tensor cores,
    for which some engines have a flag.
    """
    kernels: ExpertKernels = "default"
    """The kernels of routed experts: ``marlin`` for weights in mxfp4 with vLLM's VLLM_MXFP4_USE_MARLIN=1, which pads
    them and computes in bf16, and with TensorRT-LLM's moe_config.backend ``deepgemm`` for weights in fp8 and
    ``cutlass`` for weights in nvfp4.
    """


@dataclass(frozen=True, slots=True)
class SlidingWindow:
    """Layers whose attention looks back over a window only; their KV cache stops growing there."""

    tokens: PositiveTokens
    """The tokens that a windowed layer looks back over."""
    layers: CountOrZero
    """The number of windowed layers; the others look at the whole context."""


@dataclass(frozen=True, slots=True)
class OtherMLP:
    """Layers with a dense MLP of another width than the model's."""

    layers: CountOrZero
    """The number of these layers."""
    intermediate_size: Width
    """The width of their MLP; 0 for one matrix as wide as the residual stream."""


@dataclass(frozen=True, slots=True)
class VisionTower:
    """The layers of an encoder of images: a vision transformer whose attention sees all patches of one image."""

    layers: Count
    """The number of layers."""
    hidden_size: Width
    """The width of the residual stream."""
    heads: Count
    """The number of attention heads."""
    intermediate_size: Width
    """The width of the MLP."""
    patch_px: Count
    """The edge of one patch in pixels."""
    merge: Count = 1
    """So many patches on each edge of a square become one token of the language model."""
    mlp: Literal["gated", "plain"] = "plain"
    """A gated MLP has three matrices, a plain one two."""
    projector_b: BillionsOrZero = 0.0
    """The weights of the projector that each token passes on its way to the language model."""
    tokens: PositiveTokens | None = None
    """The tokens of every image, where the model scales images to them; null: they follow from the pixels."""


@dataclass(frozen=True, slots=True)
class SideEncoder:
    """An encoder of images or sounds beside a language model.

    Its passes are simulated by a stage ``encode_images``, if it is one of images with a known ``tower``.
    """

    parameters_b: Billions
    """The number of its parameters, all of them in bf16."""
    tower: VisionTower | None = None
    """The layers of an encoder of images; null where they are not known."""


@dataclass(frozen=True, slots=True)
class LayerInputs:
    """Embeddings that every layer has of its own, as in Gemma 3n and the small Gemma 4."""

    vocab_size: Width
    """The number of tokens in their vocabulary."""
    size: Width
    """The width of the embedding of one layer."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How requests draw their tokens: with top-p or top-k (all logits are ``sorted``), with repetition ``penalties``.

    A model's is that of its published generation_config.json, which engines apply to requests that say nothing.
    """

    sorted: bool = False
    penalties: bool = False


@dataclass(frozen=True, slots=True)
class Model:
    """A model's shape, as published in its config; ``attention`` in both directions has twice the pairs.

    ``heads``, ``kv_heads``, ``head_dim`` and what belongs to them describe the model's own attention. ``mixers`` are
    layers that differ from it. Where a layer has several, as Falcon-H1's have, each is counted.
    """

    name: str
    """The name of the model, by which requests may ask for it."""
    kind: Literal["decoder", "encoder"]
    """A decoder writes answers; an encoder embeds or ranks texts."""
    layers: Count
    """The number of layers."""
    hidden_size: Width
    """The width of the residual stream."""
    heads: Count
    """The number of attention heads."""
    kv_heads: Count
    """The number of heads that keys and values have."""
    head_dim: Width
    """The width of one head."""
    intermediate_size: Width
    """The width of the MLP."""
    vocab_size: Width
    """The number of tokens in the vocabulary."""
    max_context: PositiveTokens
    """The most tokens of prompt and answer together."""
    parameters_b: Billions
    """The number of parameters."""
    mlp: Literal["gated", "plain"] = "gated"
    """A gated MLP has three matrices, a plain one two."""
    tied_embeddings: bool = False
    """True where the output head shares the weights of the embedding."""
    latent_attention: LatentAttention | None = None
    """The shape of multi-head latent attention; null for ordinary attention."""
    experts: Experts | None = None
    """The mixture of experts; null for a dense model."""
    precision: ModelPrecision = ModelPrecision()
    """The precision of weights, KV cache and activations."""
    attention: Literal["causal", "bidirectional"] = "causal"
    sliding_window: SlidingWindow | None = None
    """The layers with sliding-window attention; null where all layers look at the whole context."""
    notes: tuple[str, ...] = ()
    """What an import left out or simplified, repeated by the compiled program."""
    sampling: Sampling = Sampling()
    """How requests draw their tokens."""
    attention_layers: CountOrZero | None = None
    """The number of layers with the model's own attention; null for all that ``mixers`` leave."""
    value_head_dim: Width | None = None
    """The width of one value head; null takes that of the keys."""
    output_gate: bool = False
    """True where a gate as wide as the queries scales the output of the heads."""
    head_norms: bool = False
    """True where queries and keys of all attention layers are normalised after their projection, each head by itself
    or all together.
    """
    norm_over_all_heads: bool = False
    """True where queries and keys are normalised over all heads of a layer together, as in MiniMax M2, instead
    of head by head. Tensor-parallel devices then add up sums of squares in a third all-reduce of each layer.
    """
    sparse_attention: SparseAttention | None = None
    """The indexer of sparse attention; null where attention reads all tokens."""
    mixers: dict[str, Mixer] = field(default_factory=dict)
    """Layers with windows of another shape, linear attention or Mamba, by name."""
    mlp_layers: CountOrZero | None = None
    """The number of layers with the model's own dense MLP; null for all that ``mlps`` and ``experts`` leave."""
    mlps: dict[str, OtherMLP] = field(default_factory=dict)
    """Layers with a dense MLP of another width, by name."""
    side_encoders: dict[str, SideEncoder] = field(default_factory=dict)
    """Encoders of images or sounds whose weights lie beside those of the language model, by name."""
    layer_inputs: LayerInputs | None = None
    """Embeddings that every layer has of its own; null where there are none."""
