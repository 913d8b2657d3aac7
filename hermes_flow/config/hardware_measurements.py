"""The keys for measurements of hardware: the efficiency of kernels, and the overheads of serving engines."""

from __future__ import annotations

from dataclasses import field
from typing import Literal

from hermes_flow.config.collective_fits import AllReduceFit, GatherFit
from hermes_flow.config.quantities import (
    MB,
    Count,
    CountOrZero,
    Factor,
    FactorOrZero,
    Microseconds,
    Milliseconds,
    PositiveShare,
    Seconds,
    Share,
    Size,
    Tokens,
)
from hermes_flow.program.quick_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class GemmFit:
    """t = max(flops/(peak·compute), bytes/(bandwidth·memory)) + launch_us.

    ``quantize`` is the fraction of the bandwidth at which activations are cast to this precision (a pass over the
    GEMM's input, which is read in 16 bits and written in this precision), or null where there is no such pass. Where
    experts compute in 16 bits it stands for all that is moved for each row besides the products. ``tile_rows`` is for
    the products of routed experts: their flops are those of the rows, and of so many more for each expert that has
    any.
    """

    compute: PositiveShare
    """The fraction of the peak that large matrix products reach."""
    memory: PositiveShare
    """The fraction of the memory's bandwidth that small ones reach."""
    launch_us: Microseconds
    """The time to launch one matrix product."""
    quantize: PositiveShare | None = None
    tile_rows: Size = 0.0
    """The rows by which the tiles of a kernel are longer than what an expert has to do, on average."""
    cast_elsewhere: Share = 0.0
    """The share of the rows for other devices' experts that a device casts as well. Only for experts that are held
    whole by devices that all have all tokens.
    """
    by_rows: dict[Count, Factor] | None = None
    """Factors on the time without its launch, by the mean rows of a matrix: of an expert, those that have any count.
    They are linear between the rows given and constant beyond; null for none. Kernels that choose longer tiles for
    more rows take longer where these are not full.
    """


@dataclass(frozen=True, slots=True)
class DecodeAttentionFit:
    """t per layer = (context + extra_tokens·sequences)·KV bytes/(bandwidth·memory) + launch_us."""

    memory: PositiveShare
    """The fraction of the memory's bandwidth at which KV is read."""
    launch_us: Microseconds
    """The time to launch the kernels of one layer."""
    extra_tokens: Size
    """The tokens of context that each sequence costs besides its own."""


_FITTED_WIDTH = 128


@dataclass(frozen=True, slots=True)
class PrefillAttentionFit:
    """t per layer = flops/(peak·compute·S/(S + half_length)) + launch_us, S the sequence's length.

    A head of width d takes (d + softmax_dims)/(128 + softmax_dims) of the time of one of 128, to which ``compute`` is
    fitted: the exponentials are as many whatever its width. In layers with a sliding window each token takes the time
    of the window and of ``window_tokens`` more, because kernels work on whole tiles of tokens.
    """

    compute: PositiveShare
    """The fraction of the peak that long prompts reach."""
    half_length: Size
    """The length at which half of that fraction is reached, in tokens."""
    launch_us: Microseconds
    """The time to launch the kernels of one layer."""
    window_tokens: Size = 0.0
    """The tokens that a sliding window costs besides its own."""
    softmax_dims: Size = 0.0
    """The width that a head costs besides its own."""

    def longer(self, head_dim: float) -> float:
        """Return the time of an operation of heads of this width, in that of heads of 128."""
        return (head_dim + self.softmax_dims) / head_dim * _FITTED_WIDTH / (_FITTED_WIDTH + self.softmax_dims)


@dataclass(frozen=True, slots=True)
class DeltaRuleFit:
    """Scans over prompts by the delta rule. Each multiprocessor takes one head of one prompt, chunk after chunk:

    t per layer = max(longest + extra_tokens, heads·Σ(prompt + extra_tokens)/heads_at_once)·chunk_us/64
    """

    chunk_us: Microseconds
    """The time of 64 tokens of one head with keys and values of 128."""
    extra_tokens: Size
    """The tokens that each prompt costs besides its own."""
    heads_at_once: Count
    """The heads of prompts that a device works on at the same time: its multiprocessors."""
    state_memory: PositiveShare
    """The fraction of the memory's bandwidth at which decodes read and write states."""
    convolution_memory: PositiveShare
    """The fraction of the memory's bandwidth that the convolution over a prompt reaches."""


# source: AIConfigurator's tables of gated delta nets (Apache-2.0; vLLM 0.24) on H100 and H200, prompts of 2,048 to
# 32,768 tokens: .17 to .19 of the bf16 peak. Mamba and other scans are not measured
SCAN = 0.18
# source: AIConfigurator's tables of latent and of sparse attention (Apache-2.0; vLLM 0.24; fp8 in blocks, 8 to 32
# heads, up to 128 sequences of up to 2,048 tokens). Half of what sparse attention takes longer beside the products
# and reads of the indexer, as of the experts: the medians of the whole are 76 µs on H100, 72 on H200, 126 on B200
INDEX_US = 46.0


ExpertFit = Literal[
    "bf16", "fp8", "fp8_deepgemm", "mxfp4", "mxfp4_fp8", "mxfp4_marlin", "int4", "nvfp4", "nvfp4_cutlass"
]


@dataclass(frozen=True, slots=True)
class Efficiency:
    """What kernels reach of the peaks on this hardware, with where it was measured."""

    source: str
    """Where the figures come from."""
    gemm: dict[str, GemmFit]
    """The fit of matrix products, by precision; ``fp8_block`` is for fp8 in blocks (``model.precision.fp8_blocks``),
    which takes that of ``fp8`` without it.
    """
    decode_attention: dict[str, DecodeAttentionFit]
    """The fit of attention in decodes, by precision of the KV cache."""
    prefill_attention: PrefillAttentionFit
    """The fit of attention in prefills."""
    all_reduce: dict[Count, AllReduceFit] = field(default_factory=dict)
    """The fit of the all-reduce, by number of devices."""
    gather: dict[Count, GatherFit] = field(default_factory=dict)
    """The fit of NCCL's all-gather and reduce-scatter, by number of devices."""
    experts: dict[ExpertFit, GemmFit] = field(default_factory=dict)
    """The fit of the products of routed experts, by their weights: ``mxfp4`` and ``int4`` are widened and computed
    in bf16, ``mxfp4_fp8`` is computed in fp8, the others in their own precision. ``mxfp4_marlin``, ``fp8_deepgemm``
    and ``nvfp4_cutlass`` are for ``model.experts.kernels``: ``marlin``, ``deepgemm`` and ``cutlass``. Half of what
    routing and sorting take is in each launch. What is missing takes the fit of other products.
    """
    latent_decode: dict[str, Factor] = field(default_factory=dict)
    """The fraction of the bf16 peak that decode attention over latent KV reaches, by precision of the KV: all heads
    of a device work on the same KV. Above 1 where it computes in fp8. What is missing never limits it.
    """
    scan: PositiveShare = SCAN
    """The fraction of the bf16 peak that scans of linear layers reach."""
    delta_rule: DeltaRuleFit | None = None
    """The fit of scans by the delta rule, in place of ``scan``; null where it was not measured."""
    index_us: Microseconds = INDEX_US
    """What choosing tokens takes in each layer of sparse attention beside the products and reads of its indexer."""
    kernels_of: str | None = None
    """The hardware of the same architecture whose kernels were measured in place of those of this one; null where
    they are its own. Error bars say so.
    """


@dataclass(frozen=True, slots=True)
class Sampler:
    """Drawing the next tokens of a step from m million logits, sequences · vocabulary, in µs.

    us_per_million · m; where they are sorted also sort_us + sort_us_per_million · m; with penalties also penalty_us.
    """

    us_per_million: Microseconds = 0.0
    """The time for a million logits."""
    sort_us: Microseconds = 0.0
    """The fixed time of sorting the logits."""
    sort_us_per_million: Microseconds = 0.0
    """The time of sorting a million logits."""
    penalty_us: Microseconds = 0.0
    """The time of applying penalties."""


@dataclass(frozen=True, slots=True)
class EagerSteps:
    """Steps of more tokens than CUDA graphs were captured for, in which the host launches every kernel.

    They are those of more than min(above_tokens, above_per_sequence · max_num_seqs) tokens. What is done for all
    tokens then takes ``gap_us`` longer in each layer, and at least ``layer_us`` a layer, ``experts_us`` (or
    ``triton_us``) where it is a mixture of experts, ``latent_us`` more where its attention keeps latent KV, and
    ``delta_rule_us`` more where it has the delta rule.
    """

    above_tokens: Tokens
    """Steps of more tokens than this are not captured."""
    above_per_sequence: Tokens
    """Steps of more tokens than this times ``max_num_seqs`` are not captured."""
    layer_us: Microseconds
    experts_us: Microseconds
    triton_us: Microseconds | None = None
    """The same where experts have vLLM's kernels in Triton, which are more kernels than those of other libraries: in
    bf16, fp8 and mxfp4, but for kernels that ``experts`` of the engine has, and for spread experts in fp8. Null:
    ``experts_us``.
    """
    latent_us: Microseconds = 0.0
    delta_rule_us: Microseconds = 0.0
    gap_us: Microseconds = 0.0
    """The time in each layer in which the device waits between kernels that a CUDA graph would start at once."""
    delta_rule_waits: bool = False
    """Whether the device is idle while the host launches a layer with the delta rule, so that the launches and the
    kernels of such a layer add. Otherwise the host launches kernels while the device runs those before.
    """


@dataclass(frozen=True, slots=True)
class TiledDecodes:
    """Attention of decoding sequences by the kernel for prompts, which works on tiles of ``rows`` queries.

    An engine with one kernel for all sequences of a step reads the KV of a decode once for each query head, and fills
    a tile with a single query. A decode then takes as long as a chunk of ``rows`` tokens whose context is
    ``extra_tokens`` longer, at the rate of long prompts, where this is longer than reading its KV.
    """

    rows: Tokens
    """The queries of a tile."""
    extra_tokens: Size
    """The tokens of context that each sequence costs besides its own."""


@dataclass(frozen=True, slots=True)
class Drafting:
    """The time that the host takes around the passes of speculative decoding, in µs.

    A step with drafts takes ``step_us`` more, and each draft pass takes at least ``pass_us``.
    """

    step_us: Microseconds
    """The time between the passes of the model and of the draft: rejection sampling, which tokens were accepted, and
    the inputs of the draft.
    """
    pass_us: Microseconds
    """The time in which the host launches one pass of the draft and its sampling."""


@dataclass(frozen=True, slots=True)
class SmallKernels:
    """Kernels of a decode step that move few bytes, in layers that have more of them than a plain layer.

    A plain layer has six: two norms, the rotary embedding, writing the KV, attention, and the activation of the MLP.
    Their times are in ``layer_us``. Each further one takes ``us``. The counts are those on the stream that the step
    waits for: what runs beside the routed experts on another stream takes no time.
    """

    us: Microseconds
    """The time of one of them in a CUDA graph."""
    head_norms: CountOrZero = 0
    """Those of a layer of attention whose queries and keys are normalised (``model.head_norms``)."""
    latent_norms: CountOrZero = 0
    """Those of a layer of latent attention, which normalises its compressed queries and KV."""
    output_gate: CountOrZero = 0
    """Those of a layer of attention with a gate on its output (``output_gate``)."""
    delta_rule: CountOrZero = 0
    """Those of a layer with the delta rule."""
    shared_experts: CountOrZero = 0
    """Those of a mixture with shared experts, whose results are added to those of the routed ones."""
    shared_gate: CountOrZero = 0
    """Those of a mixture whose shared experts have a gate (``model.experts.shared_gate``), besides."""


@dataclass(frozen=True, slots=True)
class EnergyFit:
    """What the hardware draws, as fractions of its ``power_w``: ``idle`` without work, and while it works

        min(1, active + compute·(operations a second / peak) + memory·(bytes a second / bandwidth))

    For ``standby_s`` after its work it draws ``active``. Where only ``idle`` is given (a CPU), what is busy draws its
    share of the rest.
    """

    source: str
    """Where the figures come from."""
    idle: Share
    active: Share | None = None
    compute: FactorOrZero | None = None
    """The power that computing at the peak adds, as a fraction of ``power_w``."""
    memory: FactorOrZero | None = None
    """The power that reading at the full bandwidth adds, as a fraction of ``power_w``."""
    standby_s: Seconds = 0.0


@dataclass(frozen=True, slots=True)
class EngineKernels:
    """What an engine's own kernels reach on a hardware, in place of the same figures of its ``efficiency``.

    What is not given here is that of the hardware. Routed experts have a key of their own.
    """

    source: str
    """Where the figures come from."""
    gemm: dict[str, GemmFit] = field(default_factory=dict)
    """The fit of matrix products, by precision; ``fp8_block`` is for fp8 in blocks (``model.precision.fp8_blocks``),
    which takes that of ``fp8`` without it.
    """
    decode_attention: dict[str, DecodeAttentionFit] = field(default_factory=dict)
    """The fit of attention in decodes, by precision of the KV cache."""
    prefill_attention: dict[str, PrefillAttentionFit] = field(default_factory=dict)
    """The fit of attention in prefills, by precision of the KV cache; that of bf16 for latent attention."""
    all_reduce: dict[Count, AllReduceFit] = field(default_factory=dict)
    """The fit of the all-reduce, by number of devices. Exchanges between experts keep that of the hardware."""


@dataclass(frozen=True, slots=True)
class EngineOverhead:
    """What the serving engine adds to the kernels: per step, per scheduled sequence, per request.

    ``attention_launch`` is the fraction of the attention kernels' launch time that CUDA graphs do not hide;
    ``ingest_ms`` the time between a request's arrival and the scheduler seeing it. Measured apart on some hardware
    only: ``layer_us``, what a layer does besides its operators (norms, activations, rotary embedding, writing the KV,
    and the launches of router and shared experts, which then count no other way; null: unknown, nothing), the factor
    ``all_reduce_wait`` by which ranks that wait for each other lengthen an all-reduce, the sampler, and eager steps.
    """

    source: str
    """Where the figures come from."""
    step_us: Microseconds
    """The time that each step takes besides its kernels."""
    sequence_us: Microseconds
    """The time that each scheduled sequence adds to a step."""
    attention_launch: FactorOrZero
    ingest_ms: Milliseconds
    layer_us: Microseconds | None = None
    kernel_gap_us: Microseconds = 0.0
    """The time between two kernels of a CUDA graph where the later one starts after the earlier one is over. Only for
    engines that have ``dependent_launches``.
    """
    dependent_launches: bool = False
    """Whether the kernels of CUDA graphs start before those that they depend on are over (programmatic dependent
    launch), which hides ``kernel_gap_us``.
    """
    elementwise: PositiveShare | None = None
    """The fraction of the memory bandwidth at which norms, activations and rotary embeddings move the values of many
    tokens, where this takes longer than ``layer_us``; null where only ``layer_us`` is known.
    """
    experts_us: Microseconds = 0.0
    """The time of a layer of experts besides ``layer_us`` and its operators: routing and sorting tokens by expert."""
    experts: dict[ExpertFit, GemmFit] | None = None
    """The fit of the products of routed experts with the kernels of this engine, in place of that of
    ``efficiency.experts``; null where that holds for all of them.
    """
    all_reduce_wait: Factor = 1.0
    all_reduce_wait_mb: MB | None = None
    """All-reduces of more MB wait no longer than one of this size; null where the wait always grows with the size."""
    plan_us: Microseconds = 0.0
    """The time in which the host plans a step and handles the tokens of the one before. An engine that looks ahead
    hides it; without look-ahead each step takes so much longer.
    """
    sampler: Sampler | None = None
    """What drawing the next tokens takes; null where nobody has measured it."""
    eager: EagerSteps | None = None
    """The steps in which the host launches every kernel; null for none."""
    drafting: Drafting | None = None
    """What speculative decoding takes of the host; null where nobody has measured it, and then nothing."""
    small_kernels: SmallKernels | None = None
    """The small kernels of layers that have more than a plain one; null where ``layer_us`` holds for all layers."""
    tiled_decodes: TiledDecodes | None = None
    """How attention of decodes slows down in a step with a prompt; null where the engine has a kernel for decodes
    that it takes in every step.
    """
    kernels: EngineKernels | None = None
    """What the engine's own kernels reach beside ``experts``, in place of ``efficiency``; null where that holds."""
