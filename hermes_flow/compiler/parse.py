"""Pass 1: the pipeline's mapping of stages to a graph of typed stages in topological order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hermes_flow.compiler.options import check_options
from hermes_flow.compiler.stages import StageKind, stage_kinds
from hermes_flow.config.convert import convert
from hermes_flow.config.schema import Pipeline
from hermes_flow.errors import ConfigError, did_you_mean


@dataclass(frozen=True, slots=True)
class StageOptions:
    """The keys every stage may have beside those of its kind.

    ``repeat`` names the loop it belongs to, ``route`` the outcomes of the pipeline's routes for which it is taken.
    Of a decode: ``branches`` answers are written side by side, and with ``vote`` only until so many are complete.
    Of a prefill: ``continues`` names the decode whose prompt and answer its prompt begins with.
    """

    after: tuple[str, ...] = ()
    pool: str | None = None
    model: str | None = None
    share: float = 1.0
    when: str | None = None
    repeat: str | None = None
    route: dict[str, str] = field(default_factory=dict)
    branches: int = 1
    vote: int | None = None
    continues: str | None = None


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
    """Stages by name, predecessors before successors; loops and routes as the pipeline gives them."""

    stages: dict[str, Stage]
    loops: dict[str, Any] = field(default_factory=dict)
    routes: dict[str, dict[str, Any]] = field(default_factory=dict)

    def successors(self, name: str) -> list[str]:
        """Return the stages that come directly after ``name``."""
        return [stage.name for stage in self.stages.values() if name in stage.options.after]

    def decode_of(self, prefill: Stage) -> Stage | None:
        """Return the decode that comes directly after a prefill, if there is one."""
        if prefill.kind != "prefill":
            return None
        names = [name for name in self.successors(prefill.name) if self.stages[name].kind == "decode"]
        return self.stages[names[0]] if names else None

    def before(self, name: str) -> list[Stage]:
        """Return all stages that come before ``name``, in order."""
        found = set(self.stages[name].options.after)
        for stage in reversed(self.stages.values()):
            if stage.name in found:
                found.update(stage.options.after)
        return [stage for stage in self.stages.values() if stage.name in found]

    def last_of_loop(self, loop: str) -> list[str]:
        """Return the stages of a loop that no other stage of it comes after."""
        inside = [stage.name for stage in self.stages.values() if stage.options.repeat == loop]
        return [name for name in inside if not set(self.successors(name)) & set(inside)]


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
    check_options(stages, pipeline, problems)
    return Graph(_topological(stages, problems), pipeline.loops, pipeline.routes)


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
