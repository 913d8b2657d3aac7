"""Finds the model whose encoder runs in each stage of images, and reports images that nothing encodes."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace

from hermes_flow.compiler.placement import Placement
from hermes_flow.config.pools import PoolConfig
from hermes_flow.config.schema import Cluster, Config, Model, TraceWorkload
from hermes_flow.config.vision import tower_of
from hermes_flow.program.requests import Requests
from hermes_flow.stages.graph import Graph, Stage

_KIND = "encode_images"


def has_images(graph: Graph) -> bool:
    """Return whether the pipeline has a stage that encodes images."""
    return any(stage.role == "images" for stage in graph.stages.values())


def with_encoders(config: Config, graph: Graph) -> Config:
    """Return the configuration with the model of pools that encode images and leave it open.

    It is that of the first pool that prefills.
    """
    if not has_images(graph):
        return config
    pools = config.cluster.pools
    prefilling = (_model(pool) for pool in pools.values() if "prefill" in pool.serves)
    model = next((own for own in prefilling if own is not None), config.model)
    filled = {
        name: replace(pool, model=model)  # type: ignore[type-var]
        if _KIND in pool.serves and hasattr(pool, "model") and pool.model is None
        else pool
        for name, pool in pools.items()
    }
    return replace(config, cluster=replace(config.cluster, pools=filled))


def with_images(
    graph: Graph, placement: Placement, config: Config, problems: list[str]
) -> tuple[Graph, frozenset[str]]:
    """Return the pipeline with the model of every stage that encodes images, and the stages within prefills.

    Mistakes go to ``problems``.
    """
    if not has_images(graph):
        return graph, frozenset()
    graph = _with_models(graph, placement, config.cluster, problems)
    _check_counted_once(graph, config, problems)
    return graph, _within_prefills(graph, placement, config.slo.stages, problems)


def _with_models(graph: Graph, placement: Placement, cluster: Cluster, problems: list[str]) -> Graph:
    from hermes_flow.stages.encode_images import EncodeImages

    stages = dict(graph.stages)
    for name, stage in graph.stages.items():
        if not isinstance(stage.params, EncodeImages) or name not in placement:
            continue
        pools = [cluster.pools[pool] for pool in placement[name].values()]
        models = [own for own in map(_model, pools) if own is not None]
        if len(pools) > 1:
            problems.append(
                f"{stage.key}.pool: {' and '.join(placement[name].values())} encode images; name one"
            )
        elif models:
            _check(stage, placement, cluster, models[0], graph, problems)
            stages[name] = replace(stage, params=replace(stage.params, reader=models[0]))
    return replace(graph, stages=stages)


def _within_prefills(
    graph: Graph, placement: Placement, bounded: Container[str], problems: list[str]
) -> frozenset[str]:
    """Return the stages that encode images as a part of the prefill after them, on the same engine.

    Such a stage has nothing but prefills of its own pool after it, and no times of its own, so that the SLO cannot
    have it among the stages that are ``bounded``. Anything else is a problem.
    """
    found = set()
    for name, stage in graph.stages.items():
        if stage.role != "images" or name not in placement:
            continue
        later = graph.successors(name)
        own = set(placement[name].values())
        beside = [other for other in later if set(placement.get(other, {}).values()) & own]
        if not beside:
            continue
        if name in bounded:
            problems.append(
                f"slo.stages.{name}: an engine encodes images within the prefill; bound the prefill, or give the "
                "stage a pool of its own"
            )
        apart = [
            other
            for other in later
            if graph.stages[other].role != "prompt" or set(placement.get(other, {}).values()) != own
        ]
        if apart:
            problems.append(
                f"{stage.key}: an engine encodes images within the prefill, and {apart[0]!r} comes after it, too; "
                "expected prefills on the same pool only"
            )
        found.add(name)
    return frozenset(found)


def unheeded_names(requests: Requests, within: Container[str], graph: Graph) -> list[str]:
    """Return a warning if images have names, and no engine encodes them that could know them again."""
    if requests.image_ids is None or any(name in within for name in graph.stages):
        return []
    return [
        "workload.path: the column 'image_hashes' has no effect: images are known again by an LLM pool that encodes "
        "them itself (serves: [prefill, decode, encode_images])"
    ]


def unheeded_images(requests: Requests, graph: Graph, config: Config) -> list[str]:
    """Return a warning if images cost nothing, or if a stage encodes images and requests have none."""
    encoding = [stage for stage in graph.stages.values() if stage.role == "images"]
    if encoding and requests.images is None:
        return [
            f"{encoding[0].key}: no request has images, so nobody takes it; workload.images, or a column 'images' "
            "of a trace, gives them"
        ]
    workload = config.workload
    if encoding or requests.images is None:
        return []
    if isinstance(workload, TraceWorkload):
        if workload.tokens_per_image is not None:
            return []
        return [
            f"workload.path: its images ({int(requests.images.sum()):,} in all) add nothing to the prompts; "
            "workload.tokens_per_image=N adds N tokens for each, and pipeline=multimodal encodes them, too"
        ]
    return [
        f"workload.images: they ({int(requests.images.sum()):,} in all) add nothing to the prompts; "
        "pipeline=multimodal encodes them"
    ]


def _check_counted_once(graph: Graph, config: Config, problems: list[str]) -> None:
    """Append a problem if the workload and a stage both add the tokens of images to prompts."""
    if getattr(config.workload, "tokens_per_image", None) is None:
        return
    from hermes_flow.stages.encode_images import EncodeImages

    problems.extend(
        f"workload.tokens_per_image: the stage {stage.name!r} adds the tokens of images; leave it out, or "
        f"set {stage.key}.in_prompt=true"
        for stage in graph.stages.values()
        if isinstance(stage.params, EncodeImages) and not stage.params.in_prompt
    )


def _check(
    stage: Stage,
    placement: Placement,
    cluster: Cluster,
    model: Model,
    graph: Graph,
    problems: list[str],
) -> None:
    """Append a problem if the model has no encoder, or if another model reads what it encodes."""
    if tower_of(model) is None:
        pool = next(iter(placement[stage.name].values()))
        problem = (
            f"cluster.pools.{pool}.model: {model.name} has no vision encoder of a known shape "
            "(model.side_encoders.NAME.tower)"
        )
        if problem not in problems:
            problems.append(problem)
    for later in graph.successors(stage.name):
        if graph.stages[later].role != "prompt":
            continue
        for name in placement.get(later, {}).values():
            reading = _model(cluster.pools[name])
            if reading is not None and reading.name != model.name:
                problems.append(
                    f"{stage.key}.pool: it has the encoder of {model.name}, and {name!r} prefills with {reading.name}"
                    "; expected the same model"
                )


def _model(pool: PoolConfig) -> Model | None:
    model: Model | None = getattr(pool, "model", None)
    return model
