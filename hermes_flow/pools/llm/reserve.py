"""The device memory that an engine needs beside weights and KV, from its parts.

vLLM runs its largest step before it makes the KV cache, and measures the most memory that this takes; TensorRT-LLM
does the same. SGLang gives KV all that is left of its share, and takes activations from the rest. CUDA graphs are
captured afterwards, from the memory that the share leaves.
"""

from __future__ import annotations

from hermes_flow.config.model import Model
from hermes_flow.config.shape import BYTES
from hermes_flow.pools.llm.schema import LLMPool
from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.program.units import gb_to_bytes

# source of _LIBRARIES_GB, _COMMUNICATION_GB and _SAMPLED_ROWS: KV blocks of 11 configurations of vLLM 0.15 on H100
# (seven dense models of 7 to 70 billion parameters and Mixtral 8x7B, bf16, TP1 to TP4, 128 sequences, steps of 1,024
# to 8,192 tokens) and of vLLM 0.19 on one RTX 4090; docs/models.md has the error of each kind
_LIBRARIES_GB = 0.2  # work spaces of matrix products, samplers and others
_COMMUNICATION_GB = 0.5  # buffers of NCCL and of custom all-reduces, where a client has several devices
# Logits of so many rows, over the tensor-parallel devices, are in use even where fewer sequences run
_SAMPLED_ROWS = 256
# source: tensors of vllm/v1/sample/ops/topk_topp_sampler.py for one logit: fp32 logits, sorted values, probabilities,
# their sums and the result (4 bytes each), sorted indices (8), a mask (1)
_LOGIT_BYTES = 29.0
# source: SGLang's log on eight H200 (sgl-project/sglang, pull request 11716): 2.0 GiB of NCCL, and 137.3 GiB free of
# 139.8 before the weights, so 0.5 GiB of a CUDA context; 0.39 GiB of NCCL on GPUs without NVLink (issue 40558). vLLM
# counts its share from the whole memory, and switches off NCCL's use of cuMem
_CONTEXT_GB = 0.54
_SGLANG_NVLINK_GB, _SGLANG_PCIE_GB = 2.1, 0.42
_NVLINK_GB_S = 150.0  # the slowest link of an NVLink generation above that of PCIe 6
# source: VLLM_FUSED_MOE_CHUNK_SIZE, the most tokens that pass the experts at once
_EXPERT_TOKENS = 32768


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
    parts = [context, communication]
    if pool.engine.scheduler != "sglang":
        parts += [
            ReservedPart("work spaces", gb_to_bytes(_LIBRARIES_GB)),
            ReservedPart("position table", _position_bytes(pool.model)),
            ReservedPart("images of a step", _image_bytes(pool)),
            max(_moments(pool), key=lambda part: part.bytes),
        ]
    return tuple(part for part in parts if part.bytes)


def _communication_gb(pool: LLMPool) -> float:
    if pool.devices == 1:
        return 0.0
    if pool.engine.scheduler != "sglang":
        return _COMMUNICATION_GB
    linked = (pool.hardware.scale_up_gb_s or 0.0) > _NVLINK_GB_S
    return _SGLANG_NVLINK_GB if linked else _SGLANG_PCIE_GB


def _moments(pool: LLMPool) -> list[ReservedPart]:
    """Return the memory in use at the moments of a step that may take most: in a layer, and in the sampler."""
    rows = pool.max_num_batched_tokens * pool.model.hidden_size * BYTES["bf16"]
    moments = [ReservedPart("activations", _activation_bytes(pool))]
    if pool.engine.scheduler == "vllm":
        sequences = max(pool.max_num_seqs, _SAMPLED_ROWS // pool.tensor_parallel)
        logits = sequences * pool.model.vocab_size * _LOGIT_BYTES
        moments.append(ReservedPart("sampler", logits + 2.0 * rows))  # hidden states and residuals stay
    return moments


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


def _position_bytes(model: Model) -> float:
    """Bytes of the sines and cosines of all positions, in bf16."""
    latent = model.latent_attention
    return model.max_context * (model.head_dim if latent is None else latent.rope_head_dim) * BYTES["bf16"]


def _image_bytes(pool: LLMPool) -> float:
    """Bytes of the encoded images of a step, which are kept, and of the pass that encodes them.

    A step has room for as many tokens of images as of text, and at least for one image.
    """
    model, total = pool.model, 0.0
    for encoder in model.side_encoders.values():
        tower = encoder.tower
        tokens = max(pool.max_num_batched_tokens, (tower.tokens or 0) if tower else 0)
        kept = max(tokens, pool.encoder_cache_size or 0)
        total += kept * model.hidden_size * BYTES["bf16"]
        if tower is not None:
            width = 4.0 * tower.hidden_size + (3 if tower.mlp == "gated" else 2) * tower.intermediate_size
            total += tokens * tower.merge**2 * width * BYTES["bf16"]
    return total
