"""What was measured on hardware: how near kernels come to the peaks, and what a serving engine adds to them."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class GemmFit:
    """t = max(flops/(peak·compute), bytes/(bandwidth·memory)) + launch_us.

    ``quantize`` is the fraction of the bandwidth at which activations are cast to this precision (a pass of
    3 bytes per element over the GEMM's input), or null where there is no such pass.
    """

    compute: float
    memory: float
    launch_us: float
    quantize: float | None = None


@dataclass(frozen=True, slots=True)
class DecodeAttentionFit:
    """t per layer = (context + extra_tokens·sequences)·KV bytes/(bandwidth·memory) + launch_us."""

    memory: float
    launch_us: float
    extra_tokens: float


@dataclass(frozen=True, slots=True)
class PrefillAttentionFit:
    """t per layer = flops/(peak·compute·S/(S + half_length)) + launch_us, S the sequence's length."""

    compute: float
    half_length: float
    launch_us: float


@dataclass(frozen=True, slots=True)
class OneShotFit:
    """Every device reads what all others have: t = alpha_us + (g−1)·bytes/(fraction·one-way scale-up bandwidth)."""

    alpha_us: float
    fraction: float


@dataclass(frozen=True, slots=True)
class AllReduceFit:
    """t = alpha_us + 2(g−1)/g·bytes/(fraction·one-way scale-up bandwidth), or one shot where that is faster."""

    alpha_us: float
    fraction: float
    one_shot: OneShotFit | None = None


@dataclass(frozen=True, slots=True)
class Efficiency:
    """What kernels reach of the peaks on this hardware, with where it was measured."""

    source: str
    gemm: dict[str, GemmFit]
    decode_attention: dict[str, DecodeAttentionFit]
    prefill_attention: PrefillAttentionFit
    all_reduce: dict[int, AllReduceFit] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sampler:
    """Drawing the next tokens of a step from m million logits, sequences · vocabulary, in µs.

    us_per_million · m; where they are sorted also sort_us + sort_us_per_million · m; with penalties also penalty_us.
    """

    us_per_million: float = 0.0
    sort_us: float = 0.0
    sort_us_per_million: float = 0.0
    penalty_us: float = 0.0


@dataclass(frozen=True, slots=True)
class EagerSteps:
    """Steps of more tokens than CUDA graphs were captured for, in which the host launches every kernel.

    They are those of more than min(above_tokens, above_per_sequence · max_num_seqs) tokens. What is done for all
    tokens then takes at least ``layer_us`` a layer, ``experts_us`` where it is a mixture of experts.
    """

    above_tokens: int
    above_per_sequence: int
    layer_us: float
    experts_us: float


@dataclass(frozen=True, slots=True)
class EnergyFit:
    """What the hardware draws, as fractions of its ``power_w``: ``idle`` at rest, and while it works

        min(1, active + compute·(operations a second / peak) + memory·(bytes a second / bandwidth))

    For ``standby_s`` after its work it draws ``active``. Where only ``idle`` is given (a CPU), what is busy draws its
    share of the rest.
    """

    source: str
    idle: float
    active: float | None = None
    compute: float | None = None
    memory: float | None = None
    standby_s: float = 0.0


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
    step_us: float
    sequence_us: float
    attention_launch: float
    ingest_ms: float
    layer_us: float | None = None
    all_reduce_wait: float = 1.0
    sampler: Sampler | None = None
    eager: EagerSteps | None = None
