"""The keys of the group engine: a serving engine's defaults for keys that a pool leaves null, and its overheads."""

from __future__ import annotations

from dataclasses import field, fields
from typing import Any, Literal

from hermes_flow.config.hardware_measurements import EngineOverhead
from hermes_flow.config.quantities import BlockTokens, Factor, PositiveShare, Sequences, StepTokens
from hermes_flow.program.quick_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Engine:
    """One serving engine.

    ``scheduler`` names the rules by which it plans its steps. The keys after that are its defaults for the keys of an
    LLM pool; null where its scheduler has no such key. ``overheads`` is what it adds to the kernels, by hardware.
    """

    name: str = "vllm"
    """The name of the engine."""
    scheduler: Literal["vllm", "sglang", "tensorrt_llm"] = "vllm"
    """The rules by which the engine plans its steps."""
    batching: dict[str, Any] | str = "chunked"
    """Which sequences go into the next step: the name of a batching policy, or a mapping with its settings."""
    lookahead: Literal[0, 1] = 1
    """1 plans a step while the one before it runs; 0 plans it when that has ended."""
    max_num_seqs: Sequences = 256
    """The most sequences in one step."""
    max_num_batched_tokens: StepTokens = 8192
    """The token budget of one step."""
    block_size: BlockTokens = 16
    """The tokens of one KV block."""
    memory_utilization: PositiveShare = 0.9
    """The share of the device memory that the engine takes."""
    preemption: Literal["recompute", "swap", "none"] = "recompute"
    """What happens to a sequence when blocks run out."""
    max_prefill_tokens: StepTokens | None = None
    """The most prompt tokens in one step of SGLang's scheduler."""
    schedule_conservativeness: Factor | None = None
    """How much of their limits SGLang expects running requests to write, as a factor."""
    mixed_chunk: bool | None = None
    """True lets SGLang's decodes run along with prompts."""
    capacity_scheduler_policy: Literal["guaranteed_no_evict", "max_utilization", "static_batch"] | None = None
    """Which requests TensorRT-LLM lets have memory."""
    context_chunking_policy: Literal["none", "first_come_first_served", "equal_progress"] | None = None
    """How TensorRT-LLM cuts prompts to what is left of a step."""
    server_limits: Literal["fixed", "by_gpu"] = "fixed"
    """How a pool without them gets ``max_num_seqs`` and ``max_num_batched_tokens``: ``fixed`` takes those above on
    every hardware, ``by_gpu`` takes what vLLM's server takes on the pool's GPU.
    """
    compiles: bool | None = None
    """Whether vLLM compiles the model when it starts, as in a new container. It measures its memory meanwhile, and
    KV gets less; false for a server that finds what an earlier start compiled. Null is true, and the only choice of
    other engines.
    """
    sorts_logits: bool | None = None
    """Whether vLLM sorts the logits of a step to draw from them, as releases before 0.16 do, in memory that KV
    does not get. Null is true, and the only choice of other engines.
    """
    counts_nccl: bool | None = None
    """Whether vLLM takes the buffers of NCCL from its share of the memory, as releases before September 2025 do. Null
    is false for vLLM, and the only choice of other engines, whose accounts have these buffers.
    """
    overheads: dict[str, EngineOverhead] = field(default_factory=dict)
    """What the engine adds to the kernels, by hardware: a hardware names its entry in ``overheads_of``."""


# Keys of an LLM pool that are null for the engine's own default.
_MEMORY = ("compiles", "sorts_logits", "counts_nccl")
_OTHERS = ("name", "scheduler", "server_limits", *_MEMORY, "overheads")
ENGINE_DEFAULTS = tuple(entry.name for entry in fields(Engine) if entry.name not in _OTHERS)
