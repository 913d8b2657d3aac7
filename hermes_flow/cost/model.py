"""The registry of cost models, and their interface: lowering a deployment to a StepCost."""

from __future__ import annotations

from dataclasses import field
from typing import Literal, Protocol

from hermes_flow.config.registry import Registry
from hermes_flow.config.schema import Hardware, Model, Speculative
from hermes_flow.cost.across_nodes import NodeLinks
from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.program.step_cost import StepCost


@dataclass(frozen=True, slots=True)
class Deployment:
    """The deployment of one LLM client, and its largest possible step; ``key`` is its pool's config key.

    ``part`` is what of the model is asked for: ``last`` the last pipeline rank with all that a step needs besides
    (without pipeline parallelism the whole model), ``upstream`` one of the ranks before it, ``draft`` a model that
    drafts for another one: all its layers and its output head, without the engine's overheads; ``encoder`` a model
    that writes nothing: all its layers, and the engine's time per step and sequence where there is an engine.
    ``nodes`` are those that its devices fill; None takes them all for one. ``all2all`` is how ranks exchange tokens.
    ``redundant_experts`` are copies of experts, which devices that hold them whole have besides.
    """

    key: str
    model: Model
    hardware: Hardware
    tensor_parallel: int
    max_tokens: int
    max_sequences: int
    pipeline_parallel: int = 1
    data_parallel: int = 1
    expert_parallel: bool = False
    speculative: Speculative = field(default_factory=Speculative)
    part: Literal["last", "upstream", "draft", "encoder"] = "last"
    nodes: NodeLinks | None = None
    all2all: Literal["allgather_reducescatter", "alltoall"] | None = None
    redundant_experts: int = 0

    @property
    def expert_group(self) -> int:
        """Devices over which the experts are spread whole; 1: each is cut over the tensor-parallel devices."""
        return self.tensor_parallel * self.data_parallel if self.expert_parallel else 1

    @property
    def devices(self) -> int:
        """All devices of the client."""
        return self.tensor_parallel * self.pipeline_parallel * self.data_parallel

    def across(self, devices: int) -> NodeLinks | None:
        """Return the nodes where so many devices fill more than one, else None.

        Those of a torus are one slice, whose links go from host to host as within them.
        """
        if self.hardware.torus is not None:
            return None
        return self.nodes if self.nodes is not None and devices > self.nodes.devices else None

    @property
    def gathers(self) -> bool:
        """Whether all ranks gather the tokens of all, and scatter the sums.

        By default they do so within a node where this was measured. source: the defaults of --all2all-backend of
        vLLM and --moe-a2a-backend of SGLang (2026), and TensorRT-LLM's choice where no kernels of DeepEP fit.
        """
        if self.all2all is not None:
            return self.all2all == "allgather_reducescatter"
        group, measured = self.expert_group, self.hardware.efficiency
        return measured is not None and group in measured.gather and self.across(group) is None

    def beyond_tensors(self) -> list[str]:
        """Return the keys that ask for more than tensor parallelism of one model, which most tables lack."""
        asked = {
            "pipeline_parallel": self.pipeline_parallel > 1,
            "data_parallel": self.data_parallel > 1,
            "expert_parallel": self.expert_parallel,
            "speculative": self.speculative.draft is not None,
        }
        return [name for name, does in asked.items() if does]

    @property
    def tokens_per_decode(self) -> int:
        """The tokens of a decoding sequence in a step: the drafted ones, and the one before them."""
        return 1 if self.speculative.draft is None else 1 + self.speculative.tokens


@dataclass(frozen=True, slots=True)
class Hop:
    """The time to send a micro-batch to the next pipeline rank, in picoseconds."""

    ps_per_token: float = 0.0
    ps: int = 0
    provenance: tuple[str, ...] = ()


class CostModel(Protocol):
    """The interface of a cost model."""

    def lower(self, deployment: Deployment) -> StepCost:
        """Return the tables for this deployment; raises ConfigError where a figure is missing."""

    def hop(self, deployment: Deployment) -> Hop:
        """Return the time of transfers between pipeline ranks; raises ConfigError if a figure is missing."""


cost_models: Registry[CostModel] = Registry("cost model", tag="kind", package=__package__)
