"""Pass 1: the pipeline's mapping of stages to a graph of typed stages in topological order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hermes_flow.compiler.stages import StageKind, stage_kinds
from hermes_flow.config.convert import convert
from hermes_flow.config.schema import Pipeline
from hermes_flow.errors import ConfigError, did_you_mean


@dataclass(frozen=True, slots=True)
class StageOptions:
    """The keys every stage may have beside those of its kind."""

    after: tuple[str, ...] = ()
    pool: str | None = None
    share: float = 1.0
    when: str | None = None


@dataclass(frozen=True, slots=True)
class Stage:
    """One parsed stage; ``key`` is its full config key."""

    name: str
    key: str
    kind: str
    params: StageKind
    options: StageOptions


@dataclass(frozen=True, slots=True)
class Graph:
    """Stages by name, predecessors before successors."""

    stages: dict[str, Stage]

    def successors(self, name: str) -> list[str]:
        """Return the stages that come directly after ``name``."""
        return [stage.name for stage in self.stages.values() if name in stage.options.after]


_OPTIONS = frozenset(StageOptions.__slots__)


def parse(pipeline: Pipeline, problems: list[str]) -> Graph:
    """Return the graph; every mistake found is appended to ``problems`` and what can be kept is kept."""
    stages: dict[str, Stage] = {}
    for name, fields in pipeline.stages.items():
        try:
            stages[name] = _stage(name, fields)
        except ConfigError as error:
            problems.append(str(error))
    if not pipeline.stages:
        problems.append("pipeline.stages: empty; a pipeline needs at least one stage")
    for stage in stages.values():
        for before in stage.options.after:
            if before not in pipeline.stages:
                near = did_you_mean(before, [name for name in pipeline.stages if name != stage.name])
                problems.append(f"{stage.key}.after: no stage is called {before!r}{near}")
    return Graph(_topological(stages, problems))


def _stage(name: str, fields: Mapping[str, Any]) -> Stage:
    key = f"pipeline.stages.{name}"
    if not isinstance(fields, Mapping):
        raise ConfigError(key, f"{fields!r} is not a mapping with the key 'kind'")
    options = {name: value for name, value in fields.items() if name in _OPTIONS}
    params = {name: value for name, value in fields.items() if name not in _OPTIONS}
    if isinstance(options.get("after"), str):
        options["after"] = [options["after"]]
    parsed = convert(StageOptions, options, key)
    if not 0.0 <= parsed.share <= 1.0:
        raise ConfigError(f"{key}.share", f"{parsed.share} is not between 0 and 1")
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
