"""The flags of vLLM, by their names in its engine arguments (vLLM 0.15 to 0.19, ``vllm serve --help``)."""

from __future__ import annotations

from hermes_flow.config.documents import DocumentError, read_json
from hermes_flow.deployments.exchange import exchange
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
    real,
    switch,
    text_of,
    whole,
)
from hermes_flow.errors import ConfigError
from hermes_flow.program.units import BYTES_PER_GB

GIB = 1 << 30


def _quantization(flag: str, value: Value) -> Keys:
    text = str(value).lower()
    if text == "fp8":
        return {"model.precision.weights": "fp8", "model.precision.activations": "fp8"}
    return {}  # of the checkpoint


def _policy(flag: str, value: Value) -> Keys:
    if text_of(flag, value, "fcfs or priority") not in ("fcfs", "priority"):
        raise ConfigError(f"task.path: {flag}", f"{value!r} is unknown; expected fcfs or priority")
    return {"scheduling_policy": value}


def _context(flag: str, value: Value) -> Keys:
    return {} if str(value) in ("auto", "-1") else {"model.max_context": number(flag, value)}


def _speculation(flag: str, value: Value) -> Keys:
    try:
        options = read_json(text_of(flag, value, "a JSON object"), finite=True)
        tokens = options.get("num_speculative_tokens")
        method = str(options.get("method", ""))
    except DocumentError as error:
        raise ConfigError(f"task.path: {flag}", error.problem) from None
    except AttributeError:
        raise ConfigError(f"task.path: {flag}", "is not a JSON object") from None
    found: Keys = {}
    if tokens is not None:
        found["speculative.tokens"] = number(f"{flag}: num_speculative_tokens", str(tokens))
    head = method if method in ("eagle", "eagle3") else "mtp" if method.endswith("mtp") else None
    return found if head is None else {**found, "speculative.head": head}


def _balancer(flag: str, value: Value) -> Keys:
    """Return the copies of experts that vLLM's load balancer lays out; when it counts and moves is not simulated."""
    try:
        copies = read_json(text_of(flag, value, "a JSON object"), finite=True).get("num_redundant_experts")
    except DocumentError as error:
        raise ConfigError(f"task.path: {flag}", error.problem) from None
    except AttributeError:
        raise ConfigError(f"task.path: {flag}", "is not a JSON object") from None
    return (
        {} if copies is None else {"redundant_experts": number(f"{flag}: num_redundant_experts", str(copies))}
    )


def _offloading(flag: str, value: Value) -> Keys:
    """Return a tier in host memory, which vLLM writes as blocks are computed and reads as a request is scheduled."""
    size = real(flag, value) * GIB / BYTES_PER_GB
    if not size:
        return {}
    return {
        "offload.tiers": ["host"],
        "offload.host.capacity_gb": round(size, 6),
        "offload.write": "computed",
        "offload.prefetch": False,
    }


VLLM = Dialect(
    engine="vllm",
    short={
        "-tp": "--tensor-parallel-size",
        "-pp": "--pipeline-parallel-size",
        "-dp": "--data-parallel-size",
        "-dpl": "--data-parallel-size-local",
        "-dpa": "--data-parallel-address",
        "-dpp": "--data-parallel-rpc-port",
        "-dpb": "--data-parallel-backend",
        "-ep": "--enable-expert-parallel",
        "-q": "--quantization",
        "-sc": "--speculative-config",
        "-O": "--optimization-level",
        "-cc": "--compilation-config",
    },
    read={
        "--tensor-parallel-size": whole("tensor_parallel"),
        "--pipeline-parallel-size": whole("pipeline_parallel"),
        "--data-parallel-size": whole("data_parallel"),
        "--enable-expert-parallel": switch("expert_parallel", True, False),
        "--all2all-backend": exchange,
        "--eplb-config": _balancer,
        "--max-num-seqs": whole("max_num_seqs"),
        "--max-num-batched-tokens": whole("max_num_batched_tokens"),
        "--long-prefill-token-threshold": whole("long_prefill_token_threshold"),
        "--block-size": whole("block_size"),
        "--gpu-memory-utilization": fraction("memory_utilization"),
        "--num-gpu-blocks-override": whole("kv_blocks"),
        "--kv-cache-dtype": kv_cache,
        "--max-model-len": _context,
        "--quantization": _quantization,
        "--enable-prefix-caching": switch("prefix_cache", True, False),
        "--kv-offloading-size": _offloading,
        "--enable-chunked-prefill": switch("batching", "chunked", "mixed"),
        "--scheduling-policy": _policy,
        "--async-scheduling": switch("lookahead", 1, 0),
        "--enable-lora": switch("adapters.on", True, False),
        "--max-loras": whole("adapters.slots"),
        "--max-lora-rank": whole("adapters.rank"),
        "--num-speculative-tokens": whole("speculative.tokens"),
        "--speculative-config": _speculation,
    },
    without_effect=NO_EFFECT,
    unmodelled={
        **EVERYWHERE,
        "--enforce-eager": "steps without CUDA graphs",
        "--compilation-config": "which steps have CUDA graphs",
        "--cudagraph-capture-sizes": "which steps have CUDA graphs",
        "--optimization-level": "which steps have CUDA graphs",
        "--max-cudagraph-capture-size": "which steps have CUDA graphs",
        "--stream-interval": "tokens that are sent together",
        "--rope-scaling": "longer contexts: set model.max_context",
        "--speculative-config": (
            "how many tokens are accepted: add speculative.acceptance_length, and which model drafts, unless a head "
            "of the model does: add speculative.draft"
        ),
        "--speculative-model": "which model drafts: add speculative.draft",
        "--kv-transfer-config": "KV that moves to other instances or a store: use cluster=disaggregated, kv_tiers "
        "or cluster.pools.llm.offload",
        "--cpu-offload-gb": "weights in host memory",
        "--kv-offloading-backend": "differences between backends of KV offloading",
        "--kv-cache-memory-bytes": "a given amount of KV memory: set kv_blocks",
        "--max-cpu-loras": "adapters on disk: set adapters.host_slots and adapters.disk_gb_s",
        "--decode-context-parallel-size": "context parallelism",
        "--prefill-context-parallel-size": "context parallelism",
        "--enable-eplb": "balancing of experts",
        "--enable-dbo": "overlap of micro-batches",
        "--dbo-decode-token-threshold": "overlap of micro-batches",
        "--dbo-prefill-token-threshold": "overlap of micro-batches",
        "--ubatch-size": "overlap of micro-batches",
        "--data-parallel-size-local": "which devices share a node: set network.devices_per_node",
        "--max-long-partial-prefills": "several prompts that are cut at once",
        "--disable-hybrid-kv-cache-manager": "whole contexts kept by layers with a window",
        "--disable-sliding-window": "layers whose window is left out",
        "--disable-cascade-attn": "the backend of attention",
        "--disable-custom-all-reduce": "all-reduces by NCCL alone",
        "--disable-chunked-mm-input": "images that are not cut between steps",
        "--kv-sharing-fast-prefill": "layers that share KV and skip prompts",
        "--calculate-kv-scales": "scales that the first step computes",
        "--mamba-cache-dtype": "the precision of states: set model.mixers.NAME.state_precision",
        "--mamba-block-size": "the blocks of states",
        "--mamba-cache-mode": "which states a prefix cache keeps",
        "--moe-backend": "the backend of experts",
        "--linear-backend": "the backend of matrix products",
        "--kernel-config": "the backends of kernels",
        "--attention-config": "the backend of attention",
        "--expert-placement-strategy": "where experts are",
        "--scheduler-cls": "another scheduler",
        "--performance-mode": "settings that it chooses: set what your server logs",
        "--mm-encoder-attn-backend": "the backend of the encoder's attention",
        "--mm-processor-kwargs": "other sizes of images",
        "--max-num-partial-prefills": "several prompts that are cut at once",
        "--limit-mm-per-prompt": "a limit on images and sounds (pipeline=multimodal encodes images)",
        "--mm-encoder-tp-mode": "encoders of images that are not cut over the devices",
        "--mm-processor-cache-gb": "images that come again",
        "--language-model-only": "leaving out the vision encoder: set model.side_encoders={}",
        "--dtype": "other precisions than 16 bits",
        "--attention-backend": "the backend of attention",
        "--mamba-ssm-cache-dtype": "the precision of states: set model.mixers.NAME.state_precision",
    },
    partly=frozenset({"--speculative-config"}),
    model=("--model",),
    simulated={
        "--dtype": SIXTEEN_BITS,
        "--cpu-offload-gb": frozenset({"0"}),
        "--decode-context-parallel-size": frozenset({"1"}),
        "--prefill-context-parallel-size": frozenset({"1"}),
        "--max-num-partial-prefills": frozenset({"1"}),
    },
)
