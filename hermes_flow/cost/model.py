"""The registry of cost models, and what each must offer: lowering a deployment to a StepCost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from hermes_flow.compiler.program import StepCost
from hermes_flow.config.registry import Registry
from hermes_flow.config.schema import Hardware, Model


@dataclass(frozen=True, slots=True)
class Deployment:
    """What one LLM client runs on, and the largest step it may plan; ``key`` is its pool's config key."""

    key: str
    model: Model
    hardware: Hardware
    tensor_parallel: int
    max_tokens: int
    max_sequences: int


class CostModel(Protocol):
    """A way to know how long steps take."""

    def lower(self, deployment: Deployment) -> StepCost:
        """Return the tables for this deployment; raises ConfigError where a figure is missing."""


cost_models: Registry[CostModel] = Registry("cost model", tag="kind")
