"""The typed configuration: every key a user may write, with its unit in its name.

GB = 1e9 bytes, TFLOP/s = 1e12 operations per second. Mappings typed ``dict[str, Any]`` (stages, arrivals,
lengths) are variants: their keys depend on a ``kind``-like entry and are checked by the registry that the
compiler finds under that name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from hermes_flow.config.engine import Engine as Engine
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
from hermes_flow.config.pools import PoolConfig, pool_kinds
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
class Cluster:
    """Pools of clients, how tasks choose among the clients of a pool, and how KV moves between pools.

    Pools between which KV moves are cut into ``groups`` of equal size, in order, and KV stays within a group; 1
    lets it move from any client to any. ``first_token`` says who emits an answer's first token: the client that
    prefills, or the one that decodes, which then computes the prompt's last token itself. To hand the KV of a
    prompt over, each of the two clients needs ``kv_handover_us`` in which it does nothing else.
    """

    name: str
    pools: dict[str, Annotated[PoolConfig, pool_kinds]]
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
    """Clients fill nodes of ``devices_per_node``, nodes fill racks, in the order of the cluster's pools.

    A node has accelerators of one kind, and a machine without accelerators is a node of its own, unless pools name a
    ``host`` or are ``beside`` another.
    """

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
    routes: dict[str, dict[str, float | str]] = field(default_factory=dict)
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
class Prices:
    """List prices in US dollars per accelerator-hour (per host-hour for CPUs), by the hardware's name.

    Hardware with a price of its own (``hardware.usd_per_hour``) keeps it; hardware without any price has no cost.
    """

    name: str
    usd_per_hour: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Output:
    """Which files a run writes beside the standard ones."""

    steps: bool = False
    trace: bool = False


@dataclass(frozen=True, slots=True)
class Config:
    """One complete, validated configuration; ``plugins`` are the modules that were imported for it.

    ``given`` is no key: it holds what the user gave (config/given.py), so that ``hf.compile`` can report keys without
    an effect. A changed copy (``dataclasses.replace``) does not have it.
    """

    pipeline: Pipeline
    cluster: Cluster
    workload: SyntheticWorkload | SessionsWorkload | TraceWorkload
    model: Model
    hardware: Hardware
    cost: dict[str, Any]
    slo: SLO
    network: Network
    task: dict[str, Any]
    engine: Engine = field(default_factory=Engine)
    prices: Prices = field(default_factory=lambda: Prices("none"))
    output: Output = Output()
    seed: int = 0
    plugins: tuple[str, ...] = ()
    given: Any = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ConfigError("seed", f"{self.seed} is negative; expected a whole number from 0")
