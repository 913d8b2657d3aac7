"""Checks where a pool can have the kernels of routed experts that its models ask for."""

from __future__ import annotations

from collections.abc import Iterator

from hermes_flow.config.hardware_measurements import ExpertFit
from hermes_flow.config.model import ExpertKernels, Model
from hermes_flow.cost.precision import KERNEL_FITS
from hermes_flow.pools.llm.evidence import kernels_of
from hermes_flow.pools.llm.schema import LLMPool

# The scheduler of the engine that has each setting, and that engine with what is modelled of it.
_OF: dict[ExpertKernels, tuple[str, str]] = {
    "marlin": ("vllm", "vLLM, whose padding and times are modelled"),
    "deepgemm": ("tensorrt_llm", "TensorRT-LLM (moe_config.backend), whose times are modelled"),
    "cutlass": ("tensorrt_llm", "TensorRT-LLM (moe_config.backend), whose times are modelled"),
}


def check_expert_kernels(pool: LLMPool, key: str, problems: list[str]) -> None:
    """Append a problem where kernels are asked for of another engine, or of another maker's accelerator."""
    maker = pool.hardware.maker
    for place, _, kernels in _with_kernels(pool):
        setting, (scheduler, what) = f"{key}.{place}.experts.kernels: {kernels}", _OF[kernels]
        if pool.engine.scheduler != scheduler:
            problems.append(
                f"{setting} is a setting of {what}, and the engine is {pool.engine.name}; expected default"
            )
        elif maker not in (None, "nvidia"):
            problems.append(
                f"{setting} is for accelerators of NVIDIA, and {pool.hardware.name} is made by {maker}; "
                "expected default"
            )


def unmeasured_kernels(name: str, pool: LLMPool) -> list[str]:
    """Return a warning for each model with kernels of experts that were not measured on the hardware."""
    found = []
    for place, model, kernels in _with_kernels(pool):
        fit = KERNEL_FITS[kernels]
        taken = _taken_times(pool, fit)
        if taken is None:
            continue
        padded = ", padded as vLLM pads them" if kernels == "marlin" else ""
        found.append(
            f"cluster.pools.{name}.{place}.experts.kernels: {kernels} was not measured on {pool.hardware.name}; the "
            f"experts of {model.name} take the time {taken}{padded} "
            f"(hardware.engine.experts.{fit} takes a fit of yours)"
        )
    return found


def _taken_times(pool: LLMPool, fit: ExpertFit) -> str | None:
    """Return whose times stand in for those of these kernels; None where they were measured on the hardware."""
    measured, engine = pool.hardware.efficiency, pool.hardware.engine
    if engine is not None and engine.experts is not None and fit in engine.experts:
        return None
    if measured is None or fit not in measured.experts:
        return "of other products there"
    sibling = kernels_of(pool.hardware)
    return None if sibling in (None, pool.hardware.name) else f"of these kernels on {sibling}"


def _with_kernels(pool: LLMPool) -> Iterator[tuple[str, Model, ExpertKernels]]:
    for place, model in (("model", pool.model), ("speculative.draft", pool.speculative.draft)):
        if model is not None and model.experts is not None and model.experts.kernels != "default":
            yield place, model, model.experts.kernels
