"""The flags of SGLang, by their names in its server arguments (SGLang 0.5)."""

from __future__ import annotations

from hermes_flow.deployments.exchange import exchange
from hermes_flow.deployments.host_memory import prefetch_policy, storage, storage_settings, write_policy
from hermes_flow.deployments.settings import (
    EVERYWHERE,
    NO_EFFECT,
    SIXTEEN_BITS,
    Dialect,
    Keys,
    Value,
    fraction,
    kv_cache,
    number,
    several,
    switch,
    text_of,
    whole,
)


def _experts(flag: str, value: Value) -> Keys:
    return several(flag, value, "expert_parallel")


def _chunk(flag: str, value: Value) -> Keys:
    tokens = number(flag, value)
    return {"chunked_prefill_size": tokens if tokens > 0 else None}


def _balance(flag: str, value: Value) -> Keys:
    name = str(value).lower()
    return {"rank_routing": "round_robin" if name == "auto" else name}


def _quantization(flag: str, value: Value) -> Keys:
    text = str(value).lower()
    if text in ("fp8", "w8a8_fp8"):
        return {"model.precision.weights": "fp8", "model.precision.activations": "fp8"}
    return {}


def _order(flag: str, value: Value) -> Keys:
    name = text_of(flag, value, "fcfs or lpm").lower()
    return {"packing": name} if name in ("fcfs", "lpm") else {}


_SPECULATION = "drafting with SGLang's scheduler"

SGLANG = Dialect(
    engine="sglang",
    short={
        "--tp": "--tensor-parallel-size",
        "--tp-size": "--tensor-parallel-size",
        "--pp": "--pipeline-parallel-size",
        "--pp-size": "--pipeline-parallel-size",
        "--dp": "--data-parallel-size",
        "--dp-size": "--data-parallel-size",
        "--ep": "--expert-parallel-size",
        "--ep-size": "--expert-parallel-size",
    },
    read={
        "--tensor-parallel-size": whole("tensor_parallel"),
        "--pipeline-parallel-size": whole("pipeline_parallel"),
        "--data-parallel-size": whole("data_parallel"),
        "--expert-parallel-size": _experts,
        "--moe-a2a-backend": exchange,
        "--ep-num-redundant-experts": whole("redundant_experts"),
        "--mem-fraction-static": fraction("memory_utilization"),
        "--max-running-requests": whole("max_num_seqs"),
        "--max-prefill-tokens": whole("max_prefill_tokens"),
        "--chunked-prefill-size": _chunk,
        "--schedule-policy": _order,
        "--schedule-conservativeness": fraction("schedule_conservativeness"),
        "--enable-mixed-chunk": switch("mixed_chunk", True, False),
        "--num-reserved-decode-tokens": whole("num_reserved_decode_tokens"),
        "--scheduler-recv-interval": whole("scheduler_recv_interval"),
        "--mamba-full-memory-ratio": fraction("mamba_full_memory_ratio"),
        "--page-size": whole("block_size"),
        "--max-total-tokens": whole("kv_tokens"),
        "--kv-cache-dtype": kv_cache,
        "--context-length": whole("model.max_context"),
        "--quantization": _quantization,
        "--enable-dp-attention": switch("dp_attention", True, False),
        "--load-balance-method": _balance,
        "--disable-radix-cache": switch("prefix_cache", False, True),
        "--disable-overlap-schedule": switch("lookahead", 0, 1),
        "--enable-hierarchical-cache": switch("host.on", True, False),
        "--hicache-size": whole("host.gb"),
        "--hicache-ratio": fraction("host.ratio"),
        "--hicache-write-policy": write_policy,
        "--hicache-storage-backend": storage,
        "--hicache-storage-prefetch-policy": prefetch_policy,
        "--hicache-storage-backend-extra-config": storage_settings,
    },
    without_effect=NO_EFFECT,
    unmodelled={
        **EVERYWHERE,
        "--schedule-policy": "other orders than fcfs and lpm",
        "--disable-cuda-graph": "steps without CUDA graphs",
        "--cuda-graph-max-bs": "which steps have CUDA graphs",
        "--attention-backend": "the backend of attention",
        "--sampling-backend": "the backend of sampling",
        "--moe-runner-backend": "the backend of experts",
        "--disaggregation-mode": "prefill and decode on servers of their own: set cluster=disaggregated",
        "--disaggregation-transfer-backend": "the backend of KV transfers",
        "--speculative-algorithm": _SPECULATION,
        "--speculative-num-steps": _SPECULATION,
        "--speculative-eagle-topk": _SPECULATION,
        "--speculative-num-draft-tokens": _SPECULATION,
        "--speculative-draft-model-path": _SPECULATION,
        "--hicache-io-backend": "how pages are copied to the host",
        "--hicache-mem-layout": "the layout of the host's memory",
        "--max-mamba-cache-size": "the memory of states",
        "--enable-torch-compile": "compiled kernels",
        "--cpu-offload-gb": "weights in host memory",
        "--enable-lora": "adapters",
        "--lora-paths": "adapters",
        "--enable-two-batch-overlap": "overlap of micro-batches",
        "--enable-eplb": "balancing of experts",
        "--deepep-mode": "which kernels of DeepEP run",
        "--enable-single-batch-overlap": "overlap within a batch",
        "--swa-full-tokens-ratio": "how memory is shared by layers with a window",
        "--prefill-max-requests": "a limit on prompts of a step",
        "--attn-cp-size": "context parallelism",
        "--prefill-attention-backend": "the backend of attention",
        "--decode-attention-backend": "the backend of attention",
        "--mm-attention-backend": "the backend of attention",
        "--fp8-gemm-backend": "the backend of matrix products",
        "--cuda-graph-bs": "which steps have CUDA graphs",
        "--disable-custom-all-reduce": "all-reduces by NCCL alone",
        "--torchao-config": "weights that are quantized as they are loaded: set model.precision.weights",
        "--moe-dense-tp-size": "dense layers on fewer devices",
        "--stream-interval": "tokens that are sent together",
        "--dtype": "other precisions than 16 bits",
    },
    model=("--model-path", "--model"),
    simulated={
        "--dtype": SIXTEEN_BITS,
        "--cpu-offload-gb": frozenset({"0"}),
        "--disaggregation-mode": frozenset({"null"}),
        "--moe-runner-backend": frozenset({"auto"}),
    },
)
