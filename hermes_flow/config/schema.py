"""The typed configuration: every key a user may write, with its unit in its name.

GB = 1e9 bytes, TFLOP/s = 1e12 operations per second. Mappings typed ``dict[str, Any]`` (stages, arrivals,
lengths) are variants: their keys depend on a ``kind``-like entry and are checked by the registry that the
compiler finds under that name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from hermes_flow.config.measured import AllReduceFit as AllReduceFit
from hermes_flow.config.measured import DecodeAttentionFit as DecodeAttentionFit
from hermes_flow.config.measured import EagerSteps as EagerSteps
from hermes_flow.config.measured import Efficiency as Efficiency
from hermes_flow.config.measured import EnergyFit as EnergyFit
from hermes_flow.config.measured import EngineOverhead as EngineOverhead
from hermes_flow.config.measured import GemmFit as GemmFit
from hermes_flow.config.measured import OneShotFit as OneShotFit
from hermes_flow.config.measured import PrefillAttentionFit as PrefillAttentionFit
from hermes_flow.config.measured import Sampler as Sampler
from hermes_flow.config.memory import MemoryTier
from hermes_flow.config.retrieval import RetrievalEfficiency
from hermes_flow.config.workloads import SessionsWorkload as SessionsWorkload
from hermes_flow.config.workloads import SyntheticWorkload as SyntheticWorkload
from hermes_flow.config.workloads import TraceWorkload as TraceWorkload
from hermes_flow.errors import ConfigError

Precision = Literal["bf16", "fp8", "int8", "int4"]


@dataclass(frozen=True, slots=True)
class ModelPrecision:
    """Bits of weights, KV cache and activations."""

    weights: Precision = "bf16"
    kv_cache: Precision = "bf16"
    activations: Precision = "bf16"


@dataclass(frozen=True, slots=True)
class LatentAttention:
    """Multi-head latent attention (DeepSeek-V2): one compressed KV vector for all heads."""

    q_lora_rank: int
    kv_lora_rank: int
    rope_head_dim: int
    nope_head_dim: int
    v_head_dim: int


@dataclass(frozen=True, slots=True)
class Experts:
    """A mixture of experts in place of the MLP of all but the first ``dense_layers`` layers."""

    count: int
    per_token: int
    intermediate_size: int
    shared: int = 0
    dense_layers: int = 0


@dataclass(frozen=True, slots=True)
class Sampling:
    """How requests draw their tokens: with top-p or top-k (all logits are ``sorted``), with repetition ``penalties``.

    A model's is that of its published generation_config.json, which engines apply to requests that say nothing.
    """

    sorted: bool = False
    penalties: bool = False


@dataclass(frozen=True, slots=True)
class Model:
    """A transformer's shape, as published in its config; ``attention`` in both directions has twice the pairs."""

    name: str
    kind: Literal["decoder", "encoder"]
    layers: int
    hidden_size: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    max_context: int
    parameters_b: float
    mlp: Literal["gated", "plain"] = "gated"
    tied_embeddings: bool = False
    latent_attention: LatentAttention | None = None
    experts: Experts | None = None
    precision: ModelPrecision = ModelPrecision()
    attention: Literal["causal", "bidirectional"] = "causal"
    sampling: Sampling = Sampling()


@dataclass(frozen=True, slots=True)
class Hardware:
    """One accelerator or one CPU host, as its datasheet gives it, and what was measured on it.

    A null figure is unknown; a cost model that needs it says so. Where the peak of a precision narrower than bf16 is
    null, nothing computes in that precision. ``memory_gb`` is the datasheet's figure, ``usable_gb`` what the driver
    reports to a process (null: as the datasheet); an engine takes a fraction of the latter, and of that weights,
    activations and ``reserved_gb`` (per device) are not available for KV.
    """

    name: str
    kind: Literal["gpu", "asic", "cpu"]
    memory_gb: float
    bandwidth_gb_s: float
    peak_tflops_bf16: float | None = None
    peak_tflops_fp8: float | None = None
    peak_tops_int8: float | None = None
    peak_tops_int4: float | None = None
    peak_tflops_fp32: float | None = None
    scale_up_gb_s: float | None = None
    network_gb_s: float | None = None
    host_link_gb_s: float | None = None
    usable_gb: float | None = None
    power_w: float | None = None
    usd_per_hour: float | None = None
    cores: int | None = None
    reserved_gb: float = 0.0
    efficiency: Efficiency | None = None
    engine: EngineOverhead | None = None
    energy: EnergyFit | None = None
    retrieval: RetrievalEfficiency | None = None


@dataclass(frozen=True, slots=True)
class Speculative:
    """Speculative decoding: ``draft`` proposes ``tokens`` a step, each accepted with probability ``acceptance``.

    Without a draft model it is off.
    """

    draft: Model | None = None
    tokens: int = 4
    acceptance: float = 0.7


@dataclass(frozen=True, slots=True)
class LLMPool:
    """``count`` identical LLM clients: an engine on ``devices`` devices.

    ``data_parallel`` replicas of the attention layers stand in one client, on tensor_parallel devices each;
    ``expert_parallel`` keeps experts whole, spread over tensor_parallel × data_parallel devices.
    ``prefix_cache`` null is true where the pool's settings allow it and prompts can be found again, else false.
    """

    kind: Literal["llm"]
    serves: tuple[str, ...]
    model: Model
    hardware: Hardware
    count: int = 1
    routing: dict[str, Any] | str | None = None
    if_needed: bool = False
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    data_parallel: int = 1
    expert_parallel: bool = False
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192
    block_size: int = 16
    kv_blocks: int | None = None
    memory_utilization: float = 0.9
    batching: str = "chunked"
    lookahead: Literal[0, 1] = 1
    packing: dict[str, Any] | str = "fcfs"
    preemption: Literal["recompute", "swap", "none"] = "recompute"
    prefix_cache: bool | None = None
    speculative: Speculative = Speculative()

    @property
    def devices(self) -> int:
        """Devices of one client."""
        return self.tensor_parallel * self.pipeline_parallel * self.data_parallel


@dataclass(frozen=True, slots=True)
class SequentialPool:
    """``count`` identical hosts that serve tasks one per core, first come first served.

    ``host`` names a pool on whose machines they are; they read next to nothing of its memory.
    """

    kind: Literal["sequential"]
    serves: tuple[str, ...]
    hardware: Hardware
    count: int = 1
    routing: dict[str, Any] | str | None = None
    if_needed: bool = False
    cores: int | None = None
    host: str | None = None


@dataclass(frozen=True, slots=True)
class BatchedPool:
    """``count`` identical clients that gather what waits, up to ``max_batch`` tasks, and serve it in one pass.

    A pass that is not full begins when its first task has waited ``wait_ms``. ``model`` is the encoder that embeds or
    reranks. With ``host``, the name of another pool, client i is on the machine of that pool's client i modulo its
    count, and they share the memory's bandwidth.
    """

    kind: Literal["batched"]
    serves: tuple[str, ...]
    hardware: Hardware
    count: int = 1
    routing: dict[str, Any] | str | None = None
    if_needed: bool = False
    model: Model | None = None
    tensor_parallel: int = 1
    cores: int | None = None
    max_batch: int = 32
    wait_ms: float = 0.0
    host: str | None = None

    @property
    def devices(self) -> int:
        """Accelerators of one client; 0 on a CPU host."""
        return 0 if self.hardware.kind == "cpu" else self.tensor_parallel


@dataclass(frozen=True, slots=True)
class MemoryPool:
    """``count`` identical stores of KV, each of several ``tiers``: they are looked into in the order they are given.

    With ``write_back`` the contexts of finished requests are kept in the first tier. ``beside`` names an LLM pool of
    as many clients: what a store has found is prefilled on the client beside it. With ``host_link`` it gets there,
    and back, over the host links of that client's devices, which ``host_link_shared_by`` clients, counted from the
    first on, have in common. ``host`` names a pool on whose machines the stores are. ``usd_per_hour`` is the price of
    one store (null: of its hardware).
    """

    kind: Literal["memory"]
    serves: tuple[str, ...]
    hardware: Hardware
    tiers: dict[str, MemoryTier]
    count: int = 1
    routing: dict[str, Any] | str | None = None
    if_needed: bool = False
    write_back: bool = True
    beside: str | None = None
    host_link: bool = False
    host_link_shared_by: int = 1
    host: str | None = None
    usd_per_hour: float | None = None

    @property
    def devices(self) -> int:
        """Accelerators of one client: none."""
        return 0


AnyPool: TypeAlias = LLMPool | SequentialPool | BatchedPool | MemoryPool


@dataclass(frozen=True, slots=True)
class Cluster:
    """Pools of clients, how tasks choose among the clients of a pool, and how KV moves between pools.

    Pools between which KV moves are cut into ``groups`` of equal size, in order, and KV stays within a group; 1
    lets it move from any client to any. ``first_token`` says who emits an answer's first token: the client that
    prefills, or the one that decodes, which then computes the prompt's last token itself. To hand the KV of a
    prompt over, each of the two clients needs ``kv_handover_us`` in which it does nothing else.
    """

    name: str
    pools: dict[str, AnyPool]
    routing: dict[str, Any] | str = "round_robin"
    routing_stale_ms: float = 0.0
    groups: int = 1
    kv_transfer: Literal["full", "layerwise"] = "full"
    first_token: Literal["prefill", "decode"] = "prefill"
    kv_handover_us: float = 0.0


@dataclass(frozen=True, slots=True)
class NetworkLevel:
    """``efficiency`` is the fraction of the line rate that transfers reach, ``latency_us`` comes on top.

    ``gb_s`` is needed of the datacenter level only (one rack's link to the others); node and rack links belong to
    the devices and come from the hardware (``scale_up_gb_s``, ``network_gb_s``).
    """

    efficiency: float = 1.0
    latency_us: float = 0.0
    gb_s: float | None = None


@dataclass(frozen=True, slots=True)
class Network:
    """Clients fill nodes of ``devices_per_node``, nodes fill racks, in the order of the cluster's pools."""

    name: str
    devices_per_node: int
    nodes_per_rack: int
    node: NetworkLevel
    rack: NetworkLevel
    datacenter: NetworkLevel


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A DAG of named stages; each stage is a mapping with a ``kind`` and that kind's keys.

    ``loops`` gives how often the stages that name a loop are repeated, a distribution of whole numbers. ``routes``
    gives the outcomes of a choice with their shares, or conditions (the first that holds; ``else`` for the rest).

    In place of stages it may have ``parts``, whole pipelines that run at once; each request takes one of them, by
    ``shares`` or as its trace says.
    """

    name: str
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    loops: dict[str, Any] = field(default_factory=dict)
    routes: dict[str, dict[str, Any]] = field(default_factory=dict)
    parts: dict[str, Pipeline] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SLO:
    """Latency bounds in milliseconds by percentile (``p50``, ``p90``, ``p99``, …).

    A request meets the SLO when each of its metrics is within that metric's loosest bound.
    """

    name: str
    ttft_ms: dict[str, float] = field(default_factory=dict)
    tpot_ms: dict[str, float] = field(default_factory=dict)
    e2e_ms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Output:
    """Which files a run writes beside the standard ones."""

    steps: bool = False
    trace: bool = False


@dataclass(frozen=True, slots=True)
class Config:
    """One complete, validated configuration; ``plugins`` are the modules that were imported for it."""

    pipeline: Pipeline
    cluster: Cluster
    workload: SyntheticWorkload | SessionsWorkload | TraceWorkload
    model: Model
    hardware: Hardware
    cost: dict[str, Any]
    slo: SLO
    network: Network
    task: dict[str, Any]
    output: Output = Output()
    seed: int = 0
    plugins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ConfigError("seed", f"{self.seed} is negative; expected a whole number from 0")
