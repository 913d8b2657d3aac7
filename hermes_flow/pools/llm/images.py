"""The images that an engine encodes itself, before the first chunk of their prompt: checks, and their time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hermes_flow.config.schema import Hardware, Model
from hermes_flow.cost.model import CostModel
from hermes_flow.cost.passes import Site
from hermes_flow.pools.llm.batching import plans_gangs
from hermes_flow.pools.llm.by_priority.settings import by_priority
from hermes_flow.pools.llm.encoder_cache import ImagesOfTasks
from hermes_flow.pools.llm.schema import LLMPool
from hermes_flow.program.ops import Op
from hermes_flow.program.program import Program
from hermes_flow.program.work import PromptImages
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


def prompt_images(name: str, pool: LLMPool, cost: CostModel, images: EncodedImages) -> PromptImages:
    """Return the images of each prompt, with the times of passes over so many of them.

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
    counts = images.patches // each
    most = int(counts.max(initial=0))
    times = [step.step_ps([(each, 0)] * count, 0, 0) if count else 0 for count in range(most + 1)]
    return PromptImages(
        counts, params.image_tokens, tuple(times), kept_tokens(pool), pool.max_num_batched_tokens
    )


def kept_tokens(pool: LLMPool) -> int:
    """Return the tokens of images that an engine keeps encoded."""
    # source: vLLM's scheduler configuration: encoder_cache_size is max_num_batched_tokens, unless it is given
    return pool.max_num_batched_tokens if pool.encoder_cache_size is None else pool.encoder_cache_size


def images_of_tasks(program: Program, ops: Sequence[Op]) -> ImagesOfTasks | None:
    """Return the images of the prompts of a pool, by task; None where its engine encodes none.

    Images without a name are all different.
    """
    asked = [None if op.generate is None else op.generate.images for op in ops]
    known = [own for own in asked if own is not None]
    if not known:
        return None
    count, named = len(program.requests), program.requests.image_ids
    ids: list[tuple[int, ...]] = []
    unnamed = -1
    for own in asked:
        for request in range(count):
            number = 0 if own is None else int(own.counts[request])
            if named is not None and number:
                ids.append(named.of(request))
            else:
                ids.append(tuple(range(unnamed, unnamed - number, -1)))
                unnamed -= number
    first = known[0]
    longest = max((own.pass_ps for own in known), key=len)
    return ImagesOfTasks(ids, first.tokens, longest, first.kept_tokens, first.step_tokens)
