"""The servers of a configuration: what each LLM pool runs, as the command line of its engine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hermes_flow.compiler.copies import with_copies
from hermes_flow.config.mixer_shape import state_layers
from hermes_flow.config.schema import Config
from hermes_flow.deployments.exchange import exchange_flags
from hermes_flow.deployments.host_memory import WRITE_POLICIES, storage_flags
from hermes_flow.deployments.models import catalog_entry, repository_of
from hermes_flow.deployments.tensorrt_llm import trtllm_settings
from hermes_flow.deployments.vllm import GIB
from hermes_flow.errors import CompileError, ConfigError
from hermes_flow.pools.llm.batching import policy_name
from hermes_flow.pools.llm.offload.lower import write_policy
from hermes_flow.pools.llm.offload.schema import Offload
from hermes_flow.pools.llm.schema import LLMPool
from hermes_flow.program.units import BYTES_PER_GB

_VENDORS = {"mi": "amd.com/gpu", "tpu": "google.com/tpu"}
_NODE_PORT = 8000
_KV_TRANSFER = '{"kv_connector":"NixlConnector","kv_role":"kv_both"}'


@dataclass(frozen=True, slots=True)
class Server:
    """``count`` identical servers of one pool.

    ``options`` are settings that the engine reads from a YAML file, and ``left_out`` those that it has no flag for.
    """

    pool: str
    engine: str
    model: str
    arguments: tuple[str, ...]
    count: int
    devices: int
    hardware: str
    left_out: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    port: int = field(default=_NODE_PORT)

    @property
    def command(self) -> tuple[str, ...]:
        """The words of its command line."""
        if self.engine == "sglang":
            return ("python3", "-m", "sglang.launch_server", *self.arguments)
        if self.engine == "trtllm":
            return ("trtllm-serve", *self.arguments)
        return ("vllm", "serve", *self.arguments)

    @property
    def resource(self) -> str:
        """The name of its devices as a resource of Kubernetes."""
        return next(
            (name for part, name in _VENDORS.items() if self.hardware.startswith(part)), "nvidia.com/gpu"
        )


def servers_of(config: Config, model: str | None = None) -> list[Server]:
    """Return the servers of all LLM pools; ``model`` names the model where its repository is not known.

    Raises ConfigError where there is no LLM pool, or a client needs more devices than a node has.
    """
    problems: list[str] = []
    if config.cluster.sites:
        raise ConfigError("cluster.sites", "servers at several sites cannot be exported at once; expected {}")
    cluster = with_copies(config.cluster, problems)
    if problems:
        raise CompileError(problems)
    pools = {name: pool for name, pool in cluster.pools.items() if isinstance(pool, LLMPool)}
    if not pools:
        raise ConfigError("cluster", "has no LLM pool, and nothing else can be exported")
    most = config.network.devices_per_node
    for name, pool in pools.items():
        if pool.devices > most:
            raise ConfigError(
                f"cluster.pools.{name}",
                f"a client has {pool.devices} devices, a node {most}; servers of several nodes cannot be exported",
            )
    return [_server(name, pool, model, apart=_apart(pool)) for name, pool in pools.items()]


def _apart(pool: LLMPool) -> bool:
    return not {"prefill", "decode"} <= set(pool.serves) and bool({"prefill", "decode"} & set(pool.serves))


def _server(name: str, pool: LLMPool, model: str | None, *, apart: bool) -> Server:
    served = model or repository_of(pool.model.name)
    if served is None:
        raise ConfigError(
            "task.model_id",
            f"null; the repository of {pool.model.name} is not known, expected ORGANISATION/NAME",
        )
    if pool.engine.scheduler == "tensorrt_llm":
        return _trtllm_server(name, pool, served, apart=apart)
    sglang = pool.engine.scheduler == "sglang"
    if not sglang and pool.engine.scheduler != "vllm":
        raise ConfigError(
            f"cluster.pools.{name}.engine",
            f"{pool.engine.name} cannot be exported; expected vllm, sglang or tensorrt_llm",
        )
    flags, left_out = _sglang(pool) if sglang else _vllm(pool)
    weights, why = _weights(pool)
    flags |= weights | exchange_flags(pool, "sglang" if sglang else "vllm")
    left_out += why
    if apart and not sglang:
        flags["--kv-transfer-config"] = _KV_TRANSFER
        left_out.append(
            "a proxy that sends each request to a prefill server first, and then to a decode server"
        )
    if apart and sglang:
        flags["--disaggregation-mode"] = "prefill" if "prefill" in pool.serves else "decode"
        left_out.append("a router that sends each request to a prefill server and to a decode server")
    words = ["--model-path", served] if sglang else [served]
    for flag, value in flags.items():
        words += [flag] if value is True else [flag, str(value)]
    return _made(name, pool, "sglang" if sglang else "vllm", served, words, left_out)


def _trtllm_server(name: str, pool: LLMPool, served: str, *, apart: bool) -> Server:
    """Return a server of trtllm-serve; what it has no flag for stands in a YAML file of options."""
    flags, options = trtllm_settings(pool)
    flags["--extra_llm_api_options"] = f"trtllm-{name}.yaml".replace("_", "-").lower()
    left_out = []
    if pool.data_parallel > 1 and pool.tensor_parallel > 1:
        left_out.append(
            f"tensor_parallel={pool.tensor_parallel} of a rank: attention DP has one device a rank"
        )
    if pool.all2all_backend is not None:
        left_out.append(f"all2all_backend={pool.all2all_backend}: the engine chooses by the machine")
    if pool.redundant_experts and pool.model.experts is not None:
        slots = pool.model.experts.count + pool.redundant_experts
        left_out.append(f"redundant_experts={pool.redundant_experts}: num_slots={slots} of its load_balancer")
    if apart:
        left_out.append("trtllm-serve disaggregated, which sends each request to a context server first")
    weights, published = pool.model.precision.weights, _published(pool)
    if weights != published:
        left_out.append(f"model.precision.weights={weights}: name a checkpoint by task.model_id")
    words = [served, *(word for flag, value in flags.items() for word in (flag, str(value)))]
    return _made(name, pool, "trtllm", served, words, left_out, options)


def _made(
    name: str,
    pool: LLMPool,
    engine: str,
    served: str,
    words: Sequence[str],
    left_out: Sequence[str],
    options: Mapping[str, Any] | None = None,
) -> Server:
    return Server(
        pool=name,
        engine=engine,
        model=served,
        arguments=tuple(words),
        count=pool.count,
        devices=pool.devices,
        hardware=pool.hardware.name,
        left_out=(*left_out, *_copied_experts(pool)),
        options=options or {},
    )


def _copied_experts(pool: LLMPool) -> list[str]:
    """Return what engines do otherwise with the experts of ranks that each have all of them."""
    if pool.data_parallel == 1 or pool.expert_parallel:
        return []
    return ["expert_parallel=false: the server cuts the experts over all ranks, and has no copy on each"]


def _vllm(pool: LLMPool) -> tuple[dict[str, Any], list[str]]:
    """Return the flags of vLLM, and the settings that it has no flag for."""
    flags: dict[str, Any] = {"--tensor-parallel-size": pool.tensor_parallel}
    if pool.pipeline_parallel > 1:
        flags["--pipeline-parallel-size"] = pool.pipeline_parallel
    if pool.data_parallel > 1:
        flags["--data-parallel-size"] = pool.data_parallel
    if pool.expert_parallel:
        flags["--enable-expert-parallel"] = True
    if pool.redundant_experts:
        flags["--enable-eplb"] = True
        flags["--eplb-config"] = json.dumps({"num_redundant_experts": pool.redundant_experts})
    flags |= {
        "--max-num-seqs": pool.max_num_seqs,
        "--max-num-batched-tokens": pool.max_num_batched_tokens,
        "--block-size": pool.block_size,
        "--gpu-memory-utilization": f"{pool.memory_utilization:g}",
        "--max-model-len": pool.model.max_context,
    }
    left_out = []
    if pool.kv_blocks is not None:
        flags["--num-gpu-blocks-override"] = pool.kv_blocks
    if pool.prefix_cache is not None:
        flags["--enable-prefix-caching" if pool.prefix_cache else "--no-enable-prefix-caching"] = True
    flags["--async-scheduling" if pool.lookahead else "--no-async-scheduling"] = True
    batching, packing = policy_name(pool.batching), policy_name(pool.packing)
    if batching == "mixed":
        flags["--no-enable-chunked-prefill"] = True
    elif batching != "chunked":
        left_out.append(f"batching={batching}")
    if pool.adapters is not None:
        flags |= {
            "--enable-lora": True,
            "--max-loras": pool.adapters.slots,
            "--max-lora-rank": pool.adapters.rank,
        }
        if pool.adapters.host_slots is not None:
            flags["--max-cpu-loras"] = pool.adapters.host_slots
    if pool.long_prefill_token_threshold:
        flags["--long-prefill-token-threshold"] = pool.long_prefill_token_threshold
    if pool.scheduling_policy != "fcfs":
        flags["--scheduling-policy"] = pool.scheduling_policy
    if packing != "fcfs":
        left_out.append(f"packing={packing}")
    if pool.preemption != "recompute":
        left_out.append(f"preemption={pool.preemption}")
    if pool.offload is not None and pool.offload.tiers:
        left_out += _offload(pool, pool.offload, flags)
    if pool.tool_gap.policy != "cache":
        left_out.append(f"tool_gap.policy={pool.tool_gap.policy}")
    if pool.retrieved_kv == "held":
        left_out.append("retrieved_kv=held: name your KV connector by --kv-transfer-config")
    if pool.model.experts is not None and pool.model.experts.kernels == "marlin":
        left_out.append(
            "model.experts.kernels=marlin: set VLLM_MXFP4_USE_MARLIN=1 in the server's environment"
        )
    return flags, left_out + _draft(pool)


def _offload(pool: LLMPool, offload: Offload, flags: dict[str, Any]) -> list[str]:
    """Add vLLM's flag for KV in host memory; return what it has no flag for."""
    left_out = []
    if offload.host is not None and "host" in offload.tiers:
        flags["--kv-offloading-size"] = f"{offload.host.capacity_gb * BYTES_PER_GB / GIB:.9g}"
    if "disk" in offload.tiers:
        left_out.append("offload.tiers=[disk]")
    write = write_policy(pool, offload)
    if write != "computed":
        left_out.append(f"offload.write={write}")
    if offload.prefetch is not False:
        left_out.append("offload.prefetch=true")
    return left_out


_HICACHE_POLICIES = {ours: theirs for theirs, ours in WRITE_POLICIES.items()}


def _sglang(pool: LLMPool) -> tuple[dict[str, Any], list[str]]:
    """Return the flags of SGLang, and the settings that it has no flag for."""
    flags: dict[str, Any] = {"--tp": pool.tensor_parallel * pool.data_parallel}
    if pool.pipeline_parallel > 1:
        flags["--pp"] = pool.pipeline_parallel
    if pool.data_parallel > 1:
        flags |= {"--dp": pool.data_parallel, "--enable-dp-attention": True}
        if pool.rank_routing is not None:
            flags["--load-balance-method"] = pool.rank_routing
    if pool.expert_parallel:
        flags["--ep"] = pool.tensor_parallel * pool.data_parallel
    if pool.redundant_experts:
        flags |= {"--enable-eplb": True, "--ep-num-redundant-experts": pool.redundant_experts}
    chunk = pool.chunked_prefill_size
    if chunk != "auto":
        flags["--chunked-prefill-size"] = (
            -1 if chunk is None else int(chunk) * pool.data_parallel
        )  # divided too
    flags |= {
        "--max-running-requests": pool.max_num_seqs * pool.data_parallel,  # SGLang divides it among the ranks
        "--max-prefill-tokens": pool.max_prefill_tokens,
        "--schedule-policy": policy_name(pool.packing),
        "--schedule-conservativeness": f"{pool.schedule_conservativeness or 1.0:g}",
        "--page-size": pool.block_size,
        "--mem-fraction-static": f"{pool.memory_utilization:g}",
        "--context-length": pool.model.max_context,
    }
    if pool.kv_blocks is not None:
        flags["--max-total-tokens"] = pool.kv_blocks * pool.block_size
    if pool.num_reserved_decode_tokens is not None:
        flags["--num-reserved-decode-tokens"] = pool.num_reserved_decode_tokens
    if pool.mamba_full_memory_ratio is not None:
        flags["--mamba-full-memory-ratio"] = f"{pool.mamba_full_memory_ratio:g}"
    if state_layers(pool.model):
        flags["--disable-radix-cache"] = True
        if "max_num_seqs" in pool.from_engine:  # a number would have a state for each
            del flags["--max-running-requests"]
    if pool.scheduler_recv_interval is not None:
        flags["--scheduler-recv-interval"] = pool.scheduler_recv_interval
    if pool.mixed_chunk:
        flags["--enable-mixed-chunk"] = True
    if pool.prefix_cache is False:
        flags["--disable-radix-cache"] = True
    if not pool.lookahead:
        flags["--disable-overlap-schedule"] = True
    if pool.offload is not None and pool.offload.host is not None and pool.offload.tiers:
        size = (
            pool.offload.host.capacity_gb / pool.devices
        )  # source: SGLang 0.5, hicache_size is that of one rank
        flags |= {
            "--enable-hierarchical-cache": True,
            "--hicache-size": max(1, round(size)),
            "--hicache-write-policy": _HICACHE_POLICIES[write_policy(pool, pool.offload)],
        }
    left_out = _draft(pool)
    if pool.offload is not None and "disk" in pool.offload.tiers:
        flags |= storage_flags(pool.offload)
        left_out.append("offload.disk (the size of the drive)")
    return {name: value for name, value in flags.items() if value is not None}, left_out


def _draft(pool: LLMPool) -> list[str]:
    draft, head = pool.speculative.draft, pool.speculative.head
    if head is not None:
        return [f"speculative.head={head}"]
    return [] if draft is None else [f"speculative.draft={draft.name}"]


def _published(pool: LLMPool) -> str:
    """Return the precision of the weights of the published checkpoint."""
    precision = catalog_entry(pool.model.name).get("precision") or {}
    return str(precision.get("weights", pool.model.precision.weights))


def _weights(pool: LLMPool) -> tuple[dict[str, Any], list[str]]:
    """Return the flags of precisions that differ from those of the published checkpoint."""
    flags: dict[str, Any] = {}
    left_out = []
    precision = pool.model.precision
    published = _published(pool)
    if precision.kv_cache != "bf16":
        flags["--kv-cache-dtype"] = precision.kv_cache if precision.kv_cache == "fp8" else "auto"
        if precision.kv_cache != "fp8":
            left_out.append(f"model.precision.kv_cache={precision.kv_cache}")
    if precision.weights != published:
        if precision.weights == "fp8":
            flags["--quantization"] = "fp8"
        else:
            left_out.append(
                f"model.precision.weights={precision.weights}: name a checkpoint by task.model_id"
            )
    return flags, left_out
