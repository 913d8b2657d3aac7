"""Checks where a pool can have the kernels of routed experts that its models ask for."""

from __future__ import annotations

from collections.abc import Iterator

from hermes_flow.config.model import Model
from hermes_flow.pools.llm.schema import LLMPool


def check_expert_kernels(pool: LLMPool, key: str, problems: list[str]) -> None:
    """Append a problem where Marlin's kernels are asked for of another engine, or of another maker's accelerator."""
    maker = pool.hardware.maker
    for place, _ in _with_marlin(pool):
        setting = f"{key}.{place}.experts.kernels: marlin"
        if pool.engine.scheduler != "vllm":
            problems.append(
                f"{setting} is a setting of vLLM, whose padding and times are modelled, and the engine is "
                f"{pool.engine.name}; expected default"
            )
        elif maker not in (None, "nvidia"):
            problems.append(
                f"{setting} is for accelerators of NVIDIA, and {pool.hardware.name} is made by {maker}; "
                "expected default"
            )


def unmeasured_kernels(name: str, pool: LLMPool) -> list[str]:
    """Return a warning for each model with Marlin's kernels on hardware where they were not measured."""
    taken = _taken_times(pool)
    if taken is None:
        return []
    return [
        f"cluster.pools.{name}.{place}.experts.kernels: marlin was not measured on {pool.hardware.name}; the experts "
        f"of {model.name} take the time {taken}, padded as vLLM pads them "
        "(hardware.engine.experts.mxfp4_marlin takes a fit of yours)"
        for place, model in _with_marlin(pool)
    ]


def _taken_times(pool: LLMPool) -> str | None:
    """Return whose times stand in for those of Marlin's kernels; None where these were measured on the hardware."""
    measured, engine = pool.hardware.efficiency, pool.hardware.engine
    if engine is not None and engine.experts is not None and "mxfp4_marlin" in engine.experts:
        return None
    if measured is None or "mxfp4_marlin" not in measured.experts:
        return "of other products there"
    sibling = measured.kernels_of
    return None if sibling in (None, pool.hardware.name) else f"of these kernels on {sibling}"


def _with_marlin(pool: LLMPool) -> Iterator[tuple[str, Model]]:
    for place, model in (("model", pool.model), ("speculative.draft", pool.speculative.draft)):
        if model is not None and model.experts is not None and model.experts.kernels == "marlin":
            yield place, model
