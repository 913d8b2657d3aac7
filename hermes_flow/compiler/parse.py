"""Phase 1: parses the pipeline's mapping of stages into a graph of typed stages in topological order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from hermes_flow.compiler.check_graph import check_options, is_by_load
from hermes_flow.config.convert import convert
from hermes_flow.config.schema import Pipeline
from hermes_flow.errors import ConfigError, did_you_mean
from hermes_flow.stages import stage_kinds
from hermes_flow.stages.graph import Graph, Stage, StageOptions

T = TypeVar("T")


_OPTIONS = frozenset(StageOptions.__slots__)


def parse(pipeline: Pipeline, problems: list[str]) -> Graph:
    """Return the graph; every mistake found is appended to ``problems`` and what can be kept is kept."""
    stages: dict[str, Stage] = {}
    for name, fields in pipeline.stages.items():
        try:
            stages[name] = _stage(name, fields)
        except ConfigError as error:
            problems.append(str(error))
    for name, stage in stages.items():
        if stage.options.during in stages and not stage.options.after:
            stages[name] = replace(stage, options=replace(stage.options, after=(stage.options.during,)))
    if not pipeline.stages:
        problems.append("pipeline.stages: empty; a pipeline needs at least one stage")
    for stage in stages.values():
        for before in stage.options.after:
            if before not in pipeline.stages:
                near = did_you_mean(before, [name for name in pipeline.stages if name != stage.name])
                problems.append(f"{stage.key}.after: no stage is called {before!r}{near}")
    check_options(stages, pipeline, problems)
    loops, routes = _sound("loops", pipeline.loops, problems), _sound("routes", pipeline.routes, problems)
    drawn = {name: entries for name, entries in routes.items() if not is_by_load(entries)}
    graph = Graph(_topological(stages, problems), loops, drawn)
    if len(drawn) < len(routes):
        from hermes_flow.compiler.load_routes import parse_load_route

        by_load = {name: entries for name, entries in routes.items() if name not in drawn}
        graph.load_routes.update(
            {name: parse_load_route(entries, f"pipeline.routes.{name}") for name, entries in by_load.items()}
        )
    return graph


def _sound(section: str, entries: dict[str, T], problems: list[str]) -> dict[str, T]:
    """Return the loops or routes that have no problem of their own."""
    told = [problem for problem in problems if problem.startswith(f"pipeline.{section}.")]
    keys = {name: f"pipeline.{section}.{name}" for name in entries}
    return {
        name: entry
        for name, entry in entries.items()
        if not any(problem.startswith((f"{keys[name]}:", f"{keys[name]}.")) for problem in told)
    }


def _stage(name: str, fields: Mapping[str, Any]) -> Stage:
    key = f"pipeline.stages.{name}"
    if not isinstance(fields, Mapping):
        raise ConfigError(key, f"{fields!r} is not a mapping with the key 'kind'")
    options = {name: value for name, value in fields.items() if name in _OPTIONS}
    params = {name: value for name, value in fields.items() if name not in _OPTIONS}
    if isinstance(options.get("after"), str):
        options["after"] = [options["after"]]
    if isinstance(options.get("reads"), str):
        options["reads"] = [options["reads"]]
    parsed = convert(StageOptions, options, key)
    kind = stage_kinds.parse(params, key)
    return Stage(name, key, str(params["kind"]), kind, parsed)


def _topological(stages: dict[str, Stage], problems: list[str]) -> dict[str, Stage]:
    """Order stages by dependency, keeping the written order among equals; a cycle is a problem."""
    ordered: dict[str, Stage] = {}
    left = dict(stages)
    while left:
        ready = next(
            (n for n, stage in left.items() if not any(before in left for before in stage.options.after)),
            None,
        )
        if ready is None:
            problems.append(f"pipeline.stages: a cycle: {_cycle(left)}")
            break
        ordered[ready] = left.pop(ready)
    return ordered


def _cycle(stages: dict[str, Stage]) -> str:
    path = [next(iter(stages))]
    while True:
        before = next(name for name in stages[path[-1]].options.after if name in stages)
        if before in path:
            loop = [*path[path.index(before) :], before]
            return " → ".join(reversed(loop))
        path.append(before)
