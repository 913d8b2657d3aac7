"""Combines several pipelines into one graph; each request takes the stages of its own part.

Stage ``decode`` of part ``chat`` is stage ``chat.decode`` of the whole; loops and routes likewise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from hermes_flow.compiler.parse import parse
from hermes_flow.config.schema import Pipeline
from hermes_flow.config.traffic import TrafficClass
from hermes_flow.errors import ConfigError, did_you_mean
from hermes_flow.program.requests import Requests
from hermes_flow.program.units import Ints
from hermes_flow.stages.graph import Graph, Stage
from hermes_flow.workload.shares import check_shares, drawn_by_share
from hermes_flow.workload.streams import stream


def parse_parts(pipeline: Pipeline, problems: list[str]) -> Graph:
    """Return the graph of all parts, or of the pipeline itself if it has none; mistakes go to ``problems``."""
    if not pipeline.parts:
        if pipeline.shares:
            problems.append("pipeline.shares: the pipeline has no parts; give them, or leave the shares out")
        return parse(pipeline, problems)
    _check(pipeline, problems)
    whole = Graph(stages={}, parts=tuple(pipeline.parts))
    for name, part in pipeline.parts.items():
        found: list[str] = []
        graph = parse(part, found)
        problems.extend(_key(name, problem) for problem in found)
        whole.stages.update({f"{name}.{stage.name}": _named(name, stage) for stage in graph.stages.values()})
        whole.loops.update({f"{name}.{loop}": times for loop, times in graph.loops.items()})
        whole.routes.update({f"{name}.{route}": outcomes for route, outcomes in graph.routes.items()})
        whole.load_routes.update({f"{name}.{route}": by_load for route, by_load in graph.load_routes.items()})
    return whole


def with_pipelines(requests: Requests, pipeline: Pipeline, seed: int, problems: list[str]) -> Requests:
    """Return the requests with the part that each one takes, from the trace or drawn by the shares.

    All requests of a session take the same one. Without parts there is nothing to choose.
    """
    if not pipeline.parts:
        return replace(requests, pipeline=None, pipelines=())
    names = tuple(pipeline.parts)
    if requests.pipeline is not None:
        _check_named(requests.pipeline, requests.pipelines, names, problems)
        place = [names.index(name) if name in names else 0 for name in requests.pipelines]
        return replace(requests, pipeline=np.array(place, dtype=np.int64)[requests.pipeline], pipelines=names)
    shares = [pipeline.shares.get(name, 0.0) for name in names]
    if not pipeline.shares:
        problems.append(
            f"pipeline.shares: empty; expected a share for each of {', '.join(names)}, "
            "or a trace with a column 'pipeline'"
        )
    if problems:
        return replace(requests, pipeline=np.zeros(len(requests), dtype=np.int64), pipelines=names)
    chosen = drawn_by_share(shares, len(requests), stream(seed, "pipelines"))
    if requests.session is not None:
        _, first, session = np.unique(requests.session, return_index=True, return_inverse=True)
        chosen = np.where(requests.session < 0, chosen, chosen[first][session])
    return replace(requests, pipeline=chosen, pipelines=names)


def check_classes(classes: Mapping[str, TrafficClass], pipeline: Pipeline, problems: list[str]) -> None:
    """Append a problem for every traffic class that names a part which the pipeline does not have."""
    for name, own in classes.items():
        if own.pipeline is None or own.pipeline in pipeline.parts:
            continue
        key = f"workload.classes.{name}.pipeline"
        if pipeline.parts:
            known = did_you_mean(own.pipeline, pipeline.parts)
            problems.append(f"{key}: the pipeline has no part called {own.pipeline!r}{known}")
        else:
            problems.append(
                f"{key}: one pipeline runs; classes take parts of one that has them, as pipeline=mixed"
            )


def _check(pipeline: Pipeline, problems: list[str]) -> None:
    """Append a problem for everything that a pipeline with parts cannot have."""
    problems.extend(
        f"pipeline.{section}: a pipeline has {section} of its own or parts, not both"
        for section in ("stages", "loops", "routes")
        if getattr(pipeline, section)
    )
    problems.extend(
        f"pipeline.parts.{name}.{section}: a part has stages, and no {section} of its own"
        for name, part in pipeline.parts.items()
        for section in ("parts", "shares")
        if getattr(part, section)
    )
    problems.extend(
        f"pipeline.parts.{name}: the name has '.', which separates parts from their stages"
        for name in pipeline.parts
        if "." in name
    )
    if not pipeline.shares:
        return
    unknown = [name for name in pipeline.shares if name not in pipeline.parts]
    problems.extend(
        f"pipeline.shares.{name}: no part is called {name!r}{did_you_mean(name, pipeline.parts)}"
        for name in unknown
    )
    problems.extend(
        f"pipeline.shares: no share for part {name!r}; 0 if no request is to take it"
        for name in pipeline.parts
        if name not in pipeline.shares
    )
    if not unknown:
        try:
            check_shares(pipeline.shares, "pipeline.shares")
        except ConfigError as error:
            problems.append(str(error))


def _check_named(chosen: Ints, named: tuple[str, ...], parts: tuple[str, ...], problems: list[str]) -> None:
    """Append a problem for every pipeline that a trace names and that is no part."""
    counts: Mapping[str, int] = dict(
        zip(named, np.bincount(chosen, minlength=len(named)).tolist(), strict=True)
    )
    problems.extend(
        f"workload.path: {count:,} requests of the trace name pipeline {name!r}, which is no part of "
        f"the pipeline{did_you_mean(name, parts)}"
        for name, count in counts.items()
        if name not in parts
    )


def _key(part: str, text: str) -> str:
    """Return a part's key or problem, as that of a pipeline by itself, at the place of the part."""
    return f"pipeline.parts.{part}{text.removeprefix('pipeline')}"


def _named(part: str, stage: Stage) -> Stage:
    """Return a part's stage with the names that it has, and that it refers to, in the whole."""
    options = stage.options
    return replace(
        stage,
        name=f"{part}.{stage.name}",
        key=_key(part, stage.key),
        options=replace(
            options,
            after=tuple(f"{part}.{name}" for name in options.after),
            reads=tuple(f"{part}.{name}" for name in options.reads),
            continues=None if options.continues is None else f"{part}.{options.continues}",
            during=None if options.during is None else f"{part}.{options.during}",
            repeat=None if options.repeat is None else f"{part}.{options.repeat}",
            route={f"{part}.{route}": outcome for route, outcome in options.route.items()},
        ),
    )
