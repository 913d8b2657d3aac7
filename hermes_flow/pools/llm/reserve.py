"""The device memory that an engine needs beside weights and KV, from its parts.

vLLM runs its largest step before it makes the KV cache, and measures the most memory that this takes, compiling the
model included; TensorRT-LLM does the same without compiling. SGLang gives KV all that is left of its share, and takes
activations from the rest. CUDA graphs are captured afterwards, from the memory that the share leaves.
"""

from __future__ import annotations

from hermes_flow.config.model import Model, SideEncoder
from hermes_flow.config.shape import BYTES
from hermes_flow.pools.llm.schema import LLMPool
from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.program.units import gb_to_bytes

# source of _LIBRARIES_GB and _COMMUNICATION_GB: KV blocks of 11 configurations of vLLM 0.15 on H100 (seven dense
# models of 7 to 70 billion parameters and Mixtral 8x7B, bf16, TP1 to TP4, 128 sequences, steps of 1,024 to 8,192
# tokens) and of vLLM 0.19 on one RTX 4090; docs/models.md has the error of each kind
_LIBRARIES_GB = 0.1  # work spaces of matrix products and others
_COMMUNICATION_GB = 0.5  # buffers of custom all-reduces and others, where a client has several devices
# source: tensors of one logit in vLLM's sampler. The model's own (2 bytes), in fp32 (4), and, where it sorts, the
# sorted values (4), their indices (8), and in PyTorch's sort of 128 rows and more (SortStable.cu) indices (8) and a
# second buffer of keys and values (12). A benchmark agrees: 1.25 GB for 256 × 131,072 logits, held twice in fp32
# (vllm-project/vllm, pull request 32558). A sort of fewer rows has its indices twice, each with its row (8 + 8).
_SORTED_LOGIT_BYTES, _FEW_SORTED_LOGIT_BYTES, _ROWS_OF_A_SORT = 38.0, 46.0, 128
# Without a sort: the model's logits (2), fp32 (4), probabilities (4) and noise (4)
_LOGIT_BYTES = 14.0
# source: SGLang's log on eight H200 (sgl-project/sglang, pull request 11716): 2.0 GiB of NCCL, and 137.3 GiB free of
# 139.8 before the weights, so 0.5 GiB of a CUDA context; 0.39 GiB of NCCL on GPUs without NVLink (issue 40558). vLLM
# takes its share from the whole memory, and since September 2025 does not take NCCL's buffers from its share
# (vllm-project/vllm, pull request 25359). TensorRT-LLM gives KV a share of what is free beside all of it, as SGLang
_CONTEXT_GB = 0.54
_NCCL_NVLINK_GB, _NCCL_PCIE_GB = 2.1, 0.42
_NVLINK_GB_S = 150.0  # the slowest link of an NVLink generation above that of PCIe 6
# source: VLLM_FUSED_MOE_CHUNK_SIZE, the most tokens that pass the experts at once
_EXPERT_TOKENS = 32768
# source: vLLM's RotaryEmbedding keeps its table in the model's own precision; SGLang's in fp32 (sglang,
# layers/rotary_embedding), and TensorRT-LLM's too (RopeParams.create_rope_const_params)
_POSITION_BYTES = {"vllm": BYTES["bf16"], "sglang": 4.0, "tensorrt_llm": 4.0}
# Settings that only vLLM's account of the memory reads
_OWN_KEYS = ("compiles", "sorts_logits", "counts_nccl")


@dataclass(frozen=True, slots=True)
class ReservedPart:
    """One part of the memory that is not available for weights and KV, in bytes on one device."""

    name: str
    bytes: float


def reserved_parts(pool: LLMPool) -> tuple[ReservedPart, ...]:
    """Return the parts of the reserve of one device; the largest step counts with its greatest moment alone.

    A figure of the user (``hardware.reserved_gb``) is the whole reserve.
    """
    given = pool.hardware.reserved_gb
    if given is not None:
        return (ReservedPart("given by reserved_gb", gb_to_bytes(given)),) if given else ()
    if pool.hardware.kind != "gpu":
        return ()
    communication = ReservedPart("communication", gb_to_bytes(_communication_gb(pool)))
    context = ReservedPart(
        "CUDA context", gb_to_bytes(0.0 if pool.engine.scheduler == "vllm" else _CONTEXT_GB)
    )
    table = ReservedPart(
        "position table", _position_bytes(pool.model, _POSITION_BYTES[pool.engine.scheduler])
    )
    parts = [context, communication, table]
    if pool.engine.scheduler != "sglang":
        parts += [
            ReservedPart("work spaces", gb_to_bytes(_LIBRARIES_GB)),
            ReservedPart("images of a step", _image_bytes(pool)),
            max(_moments(pool), key=lambda part: part.bytes),
        ]
    return tuple(part for part in parts if part.bytes)


def check_reserve(pool: LLMPool, key: str, problems: list[str]) -> None:
    """Append settings of the engine of the pool at ``key`` that its account of the memory does not read."""
    engine = pool.engine
    for name in _OWN_KEYS:
        given = getattr(engine, name)
        if engine.scheduler != "vllm" and given is not None:
            problems.append(
                f"{key}.engine.{name}: {str(given).lower()}, but only vLLM's account of the memory reads it, and the "
                f"engine is {engine.name}; expected null"
            )


def _communication_gb(pool: LLMPool) -> float:
    """Return the GB of buffers of NCCL, and of vLLM's own all-reduces, that the engine's account has."""
    if pool.devices == 1:
        return 0.0
    linked = (pool.hardware.scale_up_gb_s or 0.0) > _NVLINK_GB_S
    nccl = _NCCL_NVLINK_GB if linked else _NCCL_PCIE_GB
    if pool.engine.scheduler != "vllm":
        return nccl
    return _COMMUNICATION_GB + (nccl if pool.engine.counts_nccl else 0.0)


def _moments(pool: LLMPool) -> list[ReservedPart]:
    """Return the memory in use at the moments of a step that may take most.

    They are a layer's, the encoding of images, which comes before, sampling, and compiling. Hidden states and
    residuals of all tokens stay while the engine samples.
    """
    moments = [
        ReservedPart("activations", _activation_bytes(pool)),
        ReservedPart("encoding", _encoding_bytes(pool)),
    ]
    if pool.engine.scheduler == "vllm":
        hidden = 2.0 * pool.max_num_batched_tokens * pool.model.hidden_size * BYTES["bf16"]
        logits = pool.max_num_seqs * pool.model.vocab_size * _logit_bytes(pool)
        moments.append(ReservedPart("sampler", logits + hidden))
        if pool.engine.compiles is not False:
            moments.append(ReservedPart("compilation", _compiled_table_bytes(pool) + hidden))
    return moments


def _logit_bytes(pool: LLMPool) -> float:
    if pool.engine.sorts_logits is False:
        return _LOGIT_BYTES
    return _SORTED_LOGIT_BYTES if pool.max_num_seqs >= _ROWS_OF_A_SORT else _FEW_SORTED_LOGIT_BYTES


def _compiled_table_bytes(pool: LLMPool) -> float:
    """Bytes of the largest table that a compiled kernel reads from: of the positions, or of the tokens.

    vLLM has the compiler time kernels that may become one (``benchmark_combo_kernel``, vLLM pull request 26682), on
    random copies of everything they read (PyTorch, triton_combo_kernel.py). A model that also takes images reads its
    tokens' table outside of what is compiled.
    """
    model = pool.model
    positions = _position_bytes(model, BYTES["bf16"])
    tokens = model.vocab_size * model.hidden_size * BYTES["bf16"] / pool.tensor_parallel
    return positions if model.side_encoders else max(positions, tokens)


def _activation_bytes(pool: LLMPool) -> float:
    """Bytes of the activations of one layer in the largest step: residuals, hidden states, and its widest module."""
    model, devices, tokens = pool.model, pool.tensor_parallel, pool.max_num_batched_tokens
    value_dim = model.value_head_dim or model.head_dim
    attention = (model.heads * (model.head_dim + value_dim) + 2 * model.kv_heads * model.head_dim) / devices
    matrices = 3 if model.mlp == "gated" else 2
    widest = tokens * max(attention, matrices * model.intermediate_size / devices)
    return BYTES["bf16"] * (2.0 * tokens * model.hidden_size + max(widest, _expert_values(pool)))


def _expert_values(pool: LLMPool) -> float:
    """Values that the routed experts of one layer hold; their results and their first products share a buffer.

    Experts held whole see the tokens of all ranks of data-parallel attention.
    """
    experts, model = pool.model.experts, pool.model
    if experts is None:
        return 0.0
    whole = pool.expert_parallel
    tokens = min(pool.max_num_batched_tokens * (pool.data_parallel if whole else 1), _EXPERT_TOKENS)
    width = experts.intermediate_size / (1 if whole else pool.tensor_parallel)
    first = (2.0 if model.mlp == "gated" else 1.0) * width
    return tokens * experts.per_token * (max(first, float(model.hidden_size)) + width)


def _position_bytes(model: Model, number_bytes: float) -> float:
    """Bytes of the sines and cosines of all positions, in numbers of so many bytes."""
    latent = model.latent_attention
    return model.max_context * (model.head_dim if latent is None else latent.rope_head_dim) * number_bytes


def _image_bytes(pool: LLMPool) -> float:
    """Bytes of the encoded images of a step, which are kept.

    A step has room for as many tokens of images as of text, and at least for one image.
    """
    model, encoders = pool.model, pool.model.side_encoders.values()
    kept = (max(_image_tokens(pool, each), pool.encoder_cache_size or 0) for each in encoders)
    return sum(kept) * model.hidden_size * BYTES["bf16"]


def _encoding_bytes(pool: LLMPool) -> float:
    """Bytes of the pass that encodes the images of a step, before the model's own pass begins."""
    most = 0.0
    for each in pool.model.side_encoders.values():
        tower = each.tower
        if tower is not None:
            width = 4.0 * tower.hidden_size + (3 if tower.mlp == "gated" else 2) * tower.intermediate_size
            most = max(most, _image_tokens(pool, each) * tower.merge**2 * width * BYTES["bf16"])
    return most


def _image_tokens(pool: LLMPool, encoder: SideEncoder) -> int:
    return max(pool.max_num_batched_tokens, (encoder.tower.tokens or 0) if encoder.tower else 0)
