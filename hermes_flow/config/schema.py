"""The typed configuration: every key a user may write, with its unit in its name.

GB = 1e9 bytes, TFLOP/s = 1e12 operations per second. Mappings typed ``dict[str, Any]`` (stages, arrivals,
lengths) are variants: their keys depend on a ``kind``-like entry and are checked by the registry that the
compiler finds under that name.
"""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any, Literal

from hermes_flow.config.collective_fits import AllReduceFit as AllReduceFit
from hermes_flow.config.collective_fits import LargeFit as LargeFit
from hermes_flow.config.collective_fits import OneShotFit as OneShotFit
from hermes_flow.config.collective_fits import TwoStageFit as TwoStageFit
from hermes_flow.config.engine import Engine as Engine
from hermes_flow.config.hardware import Hardware as Hardware
from hermes_flow.config.hardware_measurements import DecodeAttentionFit as DecodeAttentionFit
from hermes_flow.config.hardware_measurements import Drafting as Drafting
from hermes_flow.config.hardware_measurements import EagerSteps as EagerSteps
from hermes_flow.config.hardware_measurements import Efficiency as Efficiency
from hermes_flow.config.hardware_measurements import EnergyFit as EnergyFit
from hermes_flow.config.hardware_measurements import EngineKernels as EngineKernels
from hermes_flow.config.hardware_measurements import EngineOverhead as EngineOverhead
from hermes_flow.config.hardware_measurements import GemmFit as GemmFit
from hermes_flow.config.hardware_measurements import PrefillAttentionFit as PrefillAttentionFit
from hermes_flow.config.hardware_measurements import Sampler as Sampler
from hermes_flow.config.hardware_measurements import SmallKernels as SmallKernels
from hermes_flow.config.hardware_measurements import TiledDecodes as TiledDecodes
from hermes_flow.config.link_failures import LinkFailure as LinkFailure
from hermes_flow.config.mixers import AttentionLayers as AttentionLayers
from hermes_flow.config.mixers import ConvolutionLayers as ConvolutionLayers
from hermes_flow.config.mixers import GatedDeltaNetLayers as GatedDeltaNetLayers
from hermes_flow.config.mixers import KimiDeltaLayers as KimiDeltaLayers
from hermes_flow.config.mixers import LightningLayers as LightningLayers
from hermes_flow.config.mixers import LinearLayers as LinearLayers
from hermes_flow.config.mixers import Mamba2Layers as Mamba2Layers
from hermes_flow.config.mixers import MambaLayers as MambaLayers
from hermes_flow.config.mixers import Mixer as Mixer
from hermes_flow.config.mixers import StateLayers as StateLayers
from hermes_flow.config.model import Experts as Experts
from hermes_flow.config.model import LatentAttention as LatentAttention
from hermes_flow.config.model import LayerInputs as LayerInputs
from hermes_flow.config.model import Model as Model
from hermes_flow.config.model import ModelPrecision as ModelPrecision
from hermes_flow.config.model import ModulePrecision as ModulePrecision
from hermes_flow.config.model import OtherMLP as OtherMLP
from hermes_flow.config.model import Precision as Precision
from hermes_flow.config.model import Sampling as Sampling
from hermes_flow.config.model import SideEncoder as SideEncoder
from hermes_flow.config.model import SlidingWindow as SlidingWindow
from hermes_flow.config.model import SparseAttention as SparseAttention
from hermes_flow.config.model import VisionTower as VisionTower
from hermes_flow.config.pools import PoolConfig, pool_kinds
from hermes_flow.config.quantities import (
    USD,
    Count,
    GBPerSecond,
    Microseconds,
    Period,
    PositiveMilliseconds,
    PositiveShare,
    RequestCount,
    Seed,
    Share,
    Size,
)
from hermes_flow.config.sites import Site as Site
from hermes_flow.config.speculative import Speculative as Speculative
from hermes_flow.config.within import Within as Within
from hermes_flow.config.workloads import RepeatedPrompts as RepeatedPrompts
from hermes_flow.config.workloads import SessionsWorkload as SessionsWorkload
from hermes_flow.config.workloads import SyntheticWorkload as SyntheticWorkload
from hermes_flow.config.workloads import TraceWorkload as TraceWorkload
from hermes_flow.program.quick_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Cluster:
    """Pools of clients, how tasks choose among the clients of a pool, and how KV moves between pools.

    Pools between which KV moves are cut into ``groups`` of equal size, in order, and KV stays within a group; 1
    lets it move from any client to any. ``first_token`` says who emits an answer's first token: the client that
    prefills, or the one that decodes, which then computes the prompt's last token itself. To hand the KV of a
    prompt over, each of the two clients needs ``kv_handover_us`` in which it does nothing else. ``kv_notice`` says
    when the scheduler of the client that decodes learns that KV has arrived.
    """

    name: str
    """The name of the cluster in tables and messages."""
    pools: dict[str, Annotated[PoolConfig, pool_kinds]]
    """The pools by name; the keys of a pool depend on its ``kind``."""
    routing: dict[str, Any] | str = "round_robin"
    """How tasks choose among the clients of a pool: the name of a routing policy, or a mapping with its settings."""
    routing_stale_ms: Period = 0.0
    """Policies see the loads as of the last multiple of this time. 0 means live loads."""
    admission: dict[str, Any] | str | None = None
    """A gateway before the cluster: an admission policy with its settings; null lets every request in at once."""
    sites: dict[str, Site] = field(default_factory=dict)
    """Sites with users and clients, by name, and what lies between them; empty: all are in one place."""
    site_routing: dict[str, Any] | str = "nearest"
    """How requests choose among the ``sites``: the name of a site policy, or a mapping with its settings."""
    copies: Count = 1
    """The whole cluster is built so many times: every pool has so many times its ``count``."""
    groups: Count = 1
    """Pools between which KV moves are cut into so many groups of equal size, and KV stays within a group."""
    kv_transfer: Literal["full", "layerwise"] = "full"
    """``full`` sends the KV of a prompt after its prefill; ``layerwise`` sends it layer by layer while the prefill
    runs.
    """
    first_token: Literal["prefill", "decode"] = "prefill"
    """The client that emits the first token of an answer. ``decode`` then computes the last token of the prompt
    itself.
    """
    kv_handover_us: Microseconds = 0.0
    """The time in which each of the two clients does nothing but hand over the KV of a prompt."""
    kv_notice: Literal["at_once", "each_step"] = "at_once"
    """When a decode client learns that KV has arrived. ``at_once``: as it does. ``each_step``: it looks as a step
    begins, and plans with what it saw as that step ends, as vLLM with its KV connectors does.
    """


@dataclass(frozen=True, slots=True)
class NetworkLevel:
    """``efficiency`` is the fraction of the line rate that transfers reach, ``latency_us`` comes on top.

    ``gb_s`` of the node and the rack level is the link of every device, in place of what its hardware has
    (``scale_up_gb_s``, ``network_gb_s``); null takes that. Of the datacenter level it is one rack's link to the
    others, and no hardware has it.
    """

    efficiency: PositiveShare = 1.0
    latency_us: Microseconds = 0.0
    gb_s: GBPerSecond | None = None


@dataclass(frozen=True, slots=True)
class Network:
    """Clients fill nodes of ``devices_per_node``, nodes fill racks, in the order of the cluster's pools.

    A node has accelerators of one kind, and a machine without accelerators is a node of its own, unless pools name a
    ``host`` or are ``beside`` another.
    """

    name: str
    """The name of the network in tables."""
    devices_per_node: Count
    nodes_per_rack: Count
    """The number of nodes in one rack."""
    node: NetworkLevel
    """The links between the devices of one node."""
    rack: NetworkLevel
    """The links between the nodes of one rack."""
    datacenter: NetworkLevel
    """The links between racks."""
    failures: tuple[LinkFailure, ...] = ()
    """The times in which links give less, or nothing."""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A DAG of named stages; each stage is a mapping with a ``kind`` and that kind's keys.

    ``loops`` gives how often the stages that name a loop are repeated, a distribution of whole numbers. ``routes``
    gives the outcomes of a choice with their shares, or conditions (the first that holds; ``else`` for the rest).

    In place of stages it may have ``parts``, whole pipelines that run at once; each request takes one of them, by
    ``shares`` or as its trace says.
    """

    name: str
    """The name of the pipeline in tables and messages."""
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The stages by name; each is a mapping with a ``kind``, the keys of every stage and those of its kind."""
    loops: dict[str, Any] = field(default_factory=dict)
    """The loops by name; ``times`` says how often the stages that name the loop are repeated: a number, or a
    distribution.
    """
    routes: dict[str, dict[str, Size | str]] = field(default_factory=dict)
    """The routes by name; each gives its outcomes with shares that add up to 1, or with conditions. The first
    condition that holds counts, and ``else`` is the last.
    """
    parts: dict[str, Pipeline] = field(default_factory=dict)
    """Whole pipelines that run at once, in place of stages."""
    shares: dict[str, Share] = field(default_factory=dict)
    """The share of requests that take each of the ``parts``."""


@dataclass(frozen=True, slots=True)
class PipelineBounds:
    """Latency bounds in milliseconds by percentile for the requests of one pipeline, where several run at once."""

    ttft_ms: dict[str, PositiveMilliseconds] = field(default_factory=dict)
    """Bounds on the time to the first token, by percentile."""
    tpot_ms: dict[str, PositiveMilliseconds] = field(default_factory=dict)
    """Bounds on the time per output token, by percentile."""
    e2e_ms: dict[str, PositiveMilliseconds] = field(default_factory=dict)
    """Bounds on the time from arrival to finish, by percentile."""
    within: Within | None = None
    """The share of the requests of the pipeline that keeps several limits at once; null for none."""


@dataclass(frozen=True, slots=True)
class SLO:
    """Latency bounds in milliseconds by percentile (``p50``, ``p90``, ``p99.9``, …), and the attainment.

    A request meets the SLO when each of its metrics is within that metric's loosest bound, and within ``within``.
    """

    name: str
    """The name of the bounds in tables."""
    ttft_ms: dict[str, PositiveMilliseconds] = field(default_factory=dict)
    """Bounds on the time to the first token, by percentile."""
    tpot_ms: dict[str, PositiveMilliseconds] = field(default_factory=dict)
    """Bounds on the time per output token, by percentile."""
    e2e_ms: dict[str, PositiveMilliseconds] = field(default_factory=dict)
    """Bounds on the time from arrival to finish, by percentile."""
    itl_ms: dict[str, PositiveMilliseconds] = field(default_factory=dict)
    """Bounds on the gaps between output tokens, by percentile over all gaps of the run."""
    stages: dict[str, dict[str, PositiveMilliseconds]] = field(default_factory=dict)
    """Bounds on the time that a request spends in a stage, with its waits, by the stage and by percentile."""
    pipelines: dict[str, PipelineBounds] = field(default_factory=dict)
    """Bounds for the requests of one pipeline, by its name, where several pipelines run at once."""
    within: Within | None = None
    """The share of requests that keeps several limits at once; null for none."""

    @property
    def bounded(self) -> bool:
        """Whether there is any bound."""
        bounds = (self.ttft_ms, self.tpot_ms, self.e2e_ms, self.itl_ms, self.stages, self.pipelines)
        return any(bounds) or self.within is not None


@dataclass(frozen=True, slots=True)
class Prices:
    """List prices in US dollars per accelerator-hour (per host-hour for CPUs), by the hardware's name.

    Hardware with a price of its own (``hardware.usd_per_hour``) keeps it; hardware without any price has no cost.
    """

    name: str
    """The name of the price list."""
    usd_per_hour: dict[str, USD] = field(default_factory=dict)
    """The price of one device, by the name of the hardware."""


@dataclass(frozen=True, slots=True)
class Output:
    """Which files a run writes beside the standard ones."""

    steps: bool = False
    """True writes ``steps.parquet``, one row for each forward pass."""
    trace: bool = False
    """True writes ``trace.json.gz``, trace events for Perfetto and Chrome."""
    report: bool = False
    """True writes a page for people: ``report.html`` of a run, ``sweep.html`` of a sweep, ``plan.html`` of a plan."""
    stream_requests: RequestCount | None = None
    """A run of more requests than four times this number is simulated and written in windows of so many, with the
    memory of a few windows; null holds it in memory as a whole. Tables are the same."""
    overwrite: bool = False
    """True replaces the old result in the folder of the run or sweep; false refuses a folder that has one."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """How a multirun makes and runs its jobs."""

    resume: bool = False
    """True goes on with the sweep in ``hydra.sweep.dir``: jobs that have their result do not run again."""
    zip: Any = ()
    """Swept keys that vary together, as in [model,hardware], or a list of such lists. Other keys are combined."""


@dataclass(frozen=True, slots=True)
class Config:
    """One complete, validated configuration; ``plugins`` are the modules that were imported for it.

    ``given`` is no key: it holds what the user gave (config/given_keys.py), so that ``hf.compile`` can report keys
    without an effect. A changed copy (``dataclasses.replace``) does not have it.
    """

    pipeline: Pipeline
    """The stages of a request."""
    cluster: Cluster
    """The pools of clients."""
    workload: SyntheticWorkload | SessionsWorkload | TraceWorkload
    """The requests."""
    model: Model
    """The model of every pool that has none of its own."""
    hardware: Hardware
    """The hardware of every pool that has none of its own."""
    cost: dict[str, Any]
    """How long a step takes: a cost model with its settings."""
    slo: SLO
    """The latency bounds."""
    network: Network
    """Nodes, racks and the links between them."""
    task: dict[str, Any]
    """What to do: a verb with its settings."""
    engine: Engine = field(default_factory=Engine)
    """The serving engine of every pool that has none of its own."""
    prices: Prices = field(default_factory=lambda: Prices("none"))
    """The price list of hardware."""
    output: Output = Output()
    """Which files a run writes besides the usual ones."""
    sweep: Sweep = Sweep()
    """How a multirun makes and runs its jobs."""
    seed: Seed = 0
    """The seed of every random draw."""
    plugins: tuple[str, ...] = ()
    """Python modules or ``.py`` files that register variants of your own."""
    given: Any = field(default=None, init=False, repr=False, compare=False)

    @property
    def bounded(self) -> bool:
        """Whether the SLO, or a traffic class, has any bound."""
        return self.slo.bounded or any(own.slo is not None for own in self.workload.classes.values())
