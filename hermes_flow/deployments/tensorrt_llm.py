"""The options of TensorRT-LLM: flags of trtllm-serve, and the keys of its YAML file (TensorRT-LLM 1.0)."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from hermes_flow.deployments.expert_backend import BACKEND, BACKENDS
from hermes_flow.deployments.settings import (
    EVERYWHERE,
    NO_EFFECT,
    SIXTEEN_BITS,
    Dialect,
    Keys,
    Value,
    fraction,
    kv_cache,
    several,
    switch,
    whole,
)
from hermes_flow.errors import ConfigError
from hermes_flow.pools.llm.schema import LLMPool
from hermes_flow.pools.llm.tensorrt_llm.settings import WAITS

_TOKENS_PER_BLOCK = 32  # source: its LLM arguments, tokens_per_block


def _experts(flag: str, value: Value) -> Keys:
    return several(flag, value, "expert_parallel")


def _reuse(flag: str, value: Value) -> Keys:
    return {"prefix_cache": str(value).lower() == "true"}


def _capacity(flag: str, value: Value) -> Keys:
    policies = ("guaranteed_no_evict", "max_utilization", "static_batch")
    name = str(value).lower()
    if name not in policies:
        raise ConfigError(
            f"task.path: {flag}", f"{value!r} is unknown; expected one of {', '.join(policies)}"
        )
    return {"capacity_scheduler_policy": name}


def _chunking(flag: str, value: Value) -> Keys:
    policies = ("first_come_first_served", "equal_progress")
    name = str(value).lower()
    if name not in policies:
        raise ConfigError(
            f"task.path: {flag}", f"{value!r} is unknown; expected one of {', '.join(policies)}"
        )
    return {"context_chunking_policy": name}


def _chunked(flag: str, value: Value) -> Keys:
    return {"context_chunking_policy": "first_come_first_served"} if str(value).lower() == "true" else {}


def _backend(flag: str, value: Value) -> Keys:
    return {BACKEND: str(value).upper()}


TENSORRT_LLM = Dialect(
    engine="tensorrt_llm",
    short={"--tp": "--tp-size", "--pp": "--pp-size", "--ep": "--ep-size"},
    read={
        "--tp-size": whole("tensor_parallel"),
        "--tensor-parallel-size": whole("tensor_parallel"),
        "--pp-size": whole("pipeline_parallel"),
        "--pipeline-parallel-size": whole("pipeline_parallel"),
        "--ep-size": _experts,
        "--moe-expert-parallel-size": _experts,
        "--max-batch-size": whole("max_num_seqs"),
        "--max-num-tokens": whole("max_num_batched_tokens"),
        "--max-seq-len": whole("model.max_context"),
        "--kv-cache-free-gpu-memory-fraction": fraction("memory_utilization"),
        "--kv-cache-config.free-gpu-memory-fraction": fraction("memory_utilization"),
        "--kv-cache-config.dtype": kv_cache,
        "--kv-cache-dtype": kv_cache,
        "--kv-cache-config.enable-block-reuse": _reuse,
        "--kv-cache-config.tokens-per-block": whole("block_size"),
        "--kv-cache-config.max-tokens": whole("kv_tokens"),
        "--enable-chunked-prefill": _chunked,
        "--scheduler-config.capacity-scheduler-policy": _capacity,
        "--scheduler-config.context-chunking-policy": _chunking,
        "--batch-wait-timeout-iters": whole("batch_wait_timeout_iters"),
        "--batch-wait-max-tokens-ratio": fraction("batch_wait_max_tokens_ratio"),
        "--batch-wait-timeout-ms": fraction("batch_wait_timeout_ms"),
        "--attention-dp-config.enable-balance": switch("attention_dp_config.enable_balance", True, False),
        "--attention-dp-config.timeout-iters": whole("attention_dp_config.timeout_iters"),
        "--attention-dp-config.batching-wait-iters": whole("attention_dp_config.batching_wait_iters"),
        "--disable-overlap-scheduler": switch("lookahead", 0, 1),
        "--enable-attention-dp": switch("attention_dp", True, False),
        "--moe-config.backend": _backend,
    },
    without_effect=NO_EFFECT,
    unmodelled={
        **EVERYWHERE,
        "--speculative-config.decoding-type": "drafting with TensorRT-LLM's scheduler",
        "--cuda-graph-config.enable-padding": "which steps have CUDA graphs",
        "--cuda-graph-config.max-batch-size": "which steps have CUDA graphs",
        "--gpus-per-node": "where the devices are: set network.devices_per_node",
        "--cluster-size": "clusters of experts",
        "--cuda-graph-config": "which steps have CUDA graphs",
        "--speculative-config": "drafting with TensorRT-LLM's scheduler",
        "--kv-cache-config.host-cache-size": "KV in host memory: set cluster.pools.llm.offload",
        "--kv-cache-config.max-attention-window": "other windows than the model's",
        "--moe-config.load-balancer": "copies of experts: set redundant_experts",
        "--cache-transceiver-config": "KV that moves to other instances: use cluster=disaggregated",
        "--context-parallel-size": "context parallelism",
        "--cp-size": "context parallelism",
        "--moe-tensor-parallel-size": "experts that are cut over some devices",
        "--num-postprocess-workers": "processes of the server",
        "--stream-interval": "tokens that are sent together",
        "--torch-compile-config": "compiled kernels",
        "--dtype": "other precisions than 16 bits",
    },
    model=("--model",),
    when_null={"--cuda-graph-config": "null: not modelled: steps without CUDA graphs"},
    simulated={"--dtype": SIXTEEN_BITS},
)


def trtllm_settings(pool: LLMPool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the flags of trtllm-serve for a pool, and the options of its YAML file, which has no flags for them."""
    flags: dict[str, Any] = {"--tp_size": pool.tensor_parallel * pool.data_parallel}
    if pool.expert_parallel:
        flags["--ep_size"] = pool.devices
    flags |= {
        "--max_batch_size": pool.max_num_seqs,
        "--max_num_tokens": pool.max_num_batched_tokens,
        "--max_seq_len": pool.model.max_context,
        "--kv_cache_free_gpu_memory_fraction": f"{pool.memory_utilization:g}",
    }
    cache: dict[str, Any] = {}
    if pool.block_size != _TOKENS_PER_BLOCK:
        cache["tokens_per_block"] = pool.block_size
    if pool.prefix_cache is not None:
        cache["enable_block_reuse"] = pool.prefix_cache
    if pool.kv_blocks is not None:
        cache["max_tokens"] = pool.kv_blocks * pool.block_size
    if pool.model.precision.kv_cache != "bf16":
        cache["dtype"] = pool.model.precision.kv_cache
    capacity, chunking = pool.capacity_scheduler_policy, pool.context_chunking_policy or "none"
    scheduler = {"capacity_scheduler_policy": str(capacity or "guaranteed_no_evict").upper()}
    if chunking != "none":
        scheduler["context_chunking_policy"] = chunking.upper()
    options: dict[str, Any] = {
        "enable_chunked_prefill": chunking != "none",
        "scheduler_config": scheduler,
    }
    if cache:
        options["kv_cache_config"] = cache
    if pool.attention_dp_config.enable_balance:
        options["attention_dp_config"] = asdict(pool.attention_dp_config)
    options |= {name: getattr(pool, name) for name in WAITS if getattr(pool, name) is not None}
    if not pool.lookahead:
        options["disable_overlap_scheduler"] = True
    if pool.data_parallel > 1:
        options["enable_attention_dp"] = True
    if pool.model.experts is not None and pool.model.experts.kernels in BACKENDS:
        options["moe_config"] = {"backend": BACKENDS[pool.model.experts.kernels]}
    return flags, options
