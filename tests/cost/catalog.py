"""Catalog entries and deployments for tests of costs, without composing a whole configuration."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from hermes_flow.config.convert import convert
from hermes_flow.config.overheads import with_overheads
from hermes_flow.config.schema import Hardware, Model
from hermes_flow.cost import CostModel, cost_models
from hermes_flow.cost.model import Deployment
from hermes_flow.program.step_cost import StepCost

CONF = Path(__file__).resolve().parents[2] / "conf"


@functools.cache
def _plain(path: str) -> Any:
    return OmegaConf.to_container(OmegaConf.load(CONF / path))


def model(name: str, **changes: Any) -> Model:
    return dataclasses.replace(convert(Model, _plain(f"model/{name}.yaml"), "model"), **changes)


def alike(mixture: Model) -> Model:
    """The model with experts that tokens choose alike often."""
    assert mixture.experts is not None
    return dataclasses.replace(
        mixture, experts=dataclasses.replace(mixture.experts, routing_skew=0.0, groups=1, groups_per_token=1)
    )


def hardware(name: str, **changes: Any) -> Hardware:
    plain = with_overheads(_plain(f"hardware/{name}.yaml"), _plain("engine/vllm.yaml"), "hardware")
    return dataclasses.replace(convert(Hardware, plain, "hardware"), **changes)


def deployment(
    model: Model,
    hardware: Hardware,
    tensor_parallel: int = 1,
    max_tokens: int = 128,
    max_sequences: int = 64,
    **changes: Any,
) -> Deployment:
    return Deployment(
        "cluster.pools.llm", model, hardware, tensor_parallel, max_tokens, max_sequences, **changes
    )


def roofline_model() -> CostModel:
    return cost_models.parse(_plain("cost/roofline.yaml"), "cost")


def roofline(model: Model, hardware: Hardware, *shape: int, **changes: Any) -> StepCost:
    """The tables of a deployment; ``shape`` and ``changes`` are its other fields."""
    return roofline_model().lower(deployment(model, hardware, *shape, **changes))
