"""The images that an engine encodes itself, before the first chunk of their prompt: checks, and their time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hermes_flow.config.schema import Hardware, Model
from hermes_flow.cost.model import CostModel
from hermes_flow.cost.passes import Site
from hermes_flow.pools.llm.batching import plans_gangs
from hermes_flow.pools.llm.by_priority.settings import by_priority
from hermes_flow.pools.llm.schema import LLMPool
from hermes_flow.program.units import Ints
from hermes_flow.stages.encode_images import EncodeImages
from hermes_flow.stages.placed import EncodedImages


@dataclass(frozen=True, slots=True)
class _EngineSite:
    """The parts of an LLM pool that determine the time of its vision encoder."""

    hardware: Hardware
    model: Model | None
    tensor_parallel: int
    cores: int | None = None
    max_batch: int = 1


def check_images(name: str, pool: LLMPool, problems: list[str]) -> None:
    """Append a problem for every setting of a pool under which its engine's encoding is not modelled."""
    key, end = (
        f"cluster.pools.{name}",
        "to encode images on this pool, or a pool of their own (pipeline=multimodal)",
    )
    if pool.engine.scheduler != "vllm":
        problems.append(f"{key}.engine: {pool.engine.name}; expected vllm {end}")
    if by_priority(pool):
        problems.append(f"{key}.scheduling_policy: priority; expected fcfs {end}")
    if plans_gangs(pool.batching):
        problems.append(f"{key}.batching: {pool.batching}; expected a policy that plans single steps {end}")
    problems.extend(
        f"{key}.{setting}: {getattr(pool, setting)}; expected 1 {end}"
        for setting in ("pipeline_parallel", "data_parallel")
        if getattr(pool, setting) > 1
    )


def encoding_ps(name: str, pool: LLMPool, cost: CostModel, images: EncodedImages) -> Ints:
    """Return the picoseconds that the images of each request take, all of them in one pass; 0 where it has none.

    Raises ConfigError where a figure is missing.
    """
    params = images.params
    assert isinstance(params, EncodeImages)
    site = Site(
        f"cluster.pools.{name}",
        _EngineSite(pool.hardware, pool.model, pool.tensor_parallel),
        cost,
        images.patches,
    )
    step = params.passes(site).step
    assert step is not None
    each = params.patches
    counts, places = np.unique(images.patches // each, return_inverse=True)
    times = [step.step_ps([(each, 0)] * count, 0, 0) if count else 0 for count in counts.tolist()]
    return np.array(times, dtype=np.int64)[places]
