"""Says what the step times of an LLM pool come from: cost model, engine, hardware and model."""

from __future__ import annotations

from hermes_flow.config.schema import Hardware, Model
from hermes_flow.cost.model import CostModel, cost_models
from hermes_flow.pools.llm.schema import LLMPool
from hermes_flow.program.evidence import Evidence


def evidence_of(pool: LLMPool, cost: CostModel) -> Evidence:
    """Return the sources of the pool's step times."""
    return Evidence(
        cost=cost_models.name_of(cost),
        engine=pool.engine.name,
        hardware=pool.hardware.name,
        kind=pool.hardware.kind,
        figures=datasheet(pool.hardware),
        measured=pool.hardware.efficiency is not None,
        model=pool.model.name,
        shape=shape_of(pool.model),
        mixture=pool.model.experts is not None,
    )


def datasheet(hardware: Hardware) -> tuple[float | None, ...]:
    """Return the figures of the datasheet that set the speed of a device."""
    return (
        hardware.bandwidth_gb_s,
        hardware.peak_tflops_bf16,
        hardware.peak_tflops_fp8,
        hardware.scale_up_gb_s,
    )


def shape_of(model: Model) -> tuple[float, ...]:
    """Return the layers, the width and the billions of parameters of a model."""
    return (model.layers, model.hidden_size, model.parameters_b)
