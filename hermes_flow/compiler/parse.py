"""Pass 1: the pipeline's mapping of stages to a graph of typed stages in topological order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from hermes_flow.compiler.options import check_options, is_by_load
from hermes_flow.compiler.stages import StageKind, stage_kinds
from hermes_flow.config.convert import convert
from hermes_flow.config.schema import Pipeline
from hermes_flow.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from hermes_flow.compiler.load_routes import RouteByLoad

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StageOptions:
    """The keys every stage may have beside those of its kind.

    ``repeat`` names the loop it belongs to, ``route`` the outcomes of the pipeline's routes for which it is taken.
    Of a decode: ``branches`` answers are written side by side, and with ``vote`` only until so many are complete.
    Of a prefill: ``continues`` names the decode whose prompt and answer its prompt begins with, ``reads`` decodes
    whose answers, and nothing else of what they have read, it holds besides. A decode with ``pause`` stops now and
    then for the stages that are ``during`` it.
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
    reads: tuple[str, ...] = ()
    pause: dict[str, Any] | None = None
    during: str | None = None


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
    """Stages by name, predecessors before successors; those loops and routes of the pipeline that are sound.

    ``load_routes`` are the routes that loads decide, ``routes`` the others.
    With ``parts`` it is several pipelines in one, and every name begins with its part's and a dot.
    """

    stages: dict[str, Stage]
    loops: dict[str, Any] = field(default_factory=dict)
    routes: dict[str, dict[str, Any]] = field(default_factory=dict)
    load_routes: dict[str, RouteByLoad] = field(default_factory=dict)
    parts: tuple[str, ...] = ()

    def part_of(self, name: str) -> str:
        """Return the part that a stage, loop or route belongs to; "" where there are none."""
        return name.partition(".")[0] if self.parts else ""

    def own_name(self, name: str) -> str:
        """Return what a stage, loop or route is called within its part."""
        return name.partition(".")[2] if self.parts else name

    def key(self, section: Literal["loops", "routes"], name: str) -> str:
        """Return the full config key of a loop or route."""
        above = f"pipeline.parts.{self.part_of(name)}" if self.parts else "pipeline"
        return f"{above}.{section}.{self.own_name(name)}"

    def successors(self, name: str) -> list[str]:
        """Return the stages that come directly after ``name``."""
        return [stage.name for stage in self.stages.values() if name in stage.options.after]

    def decode_of(self, stage: Stage) -> Stage | None:
        """Return the decode whose branches a stage has: itself, the one it prefills for or the one it scores."""
        if stage.kind == "decode":
            return stage
        near: tuple[str, ...] = ()
        if stage.kind == "prefill":
            near = tuple(self.successors(stage.name))
        elif stage.kind == "reward":
            near = stage.options.after
        return next((self.stages[name] for name in near if self._is_decode(name)), None)

    def pausing(self, stage: Stage) -> Stage | None:
        """Return the decode in whose pauses a stage happens again: itself, its prefill, what is during it."""
        during = stage.options.during
        if during is None and stage.kind not in ("prefill", "decode"):
            return None
        decode = self.decode_of(stage) if during is None else self.stages.get(during)
        if decode is None or decode.options.pause is None:
            return None
        return decode if decode.options.branches == 1 and decode.options.repeat is None else None

    def decided(self, stage: Stage) -> tuple[str, str] | None:
        """Return the route by load that decides who takes a stage, and the outcome; None where none does."""
        for name, outcome in stage.options.route.items():
            if name in self.load_routes:
                return name, outcome
        decode = self.watched(stage)
        if stage.options.during is not None:
            decode = self.pausing(stage)
        if stage.kind == "decode":  # who skips the prefill has nothing to decode
            decode = next((self.stages[name] for name in stage.options.after if name in self.stages), None)
        return None if decode is None else self.decided(decode)

    def watched(self, stage: Stage) -> Stage | None:
        """Return the decode whose answer a guard reads while it is written; None where it does not."""
        if stage.kind != "guard":
            return None
        from hermes_flow.compiler.streaming import watched_decode

        return watched_decode(stage, self.stages)

    def last_of_pause(self, decode: str) -> list[str]:
        """Return the stages in a decode's pauses that no other one of them comes after."""
        inside = [stage.name for stage in self.stages.values() if stage.options.during == decode]
        return [name for name in inside if not set(self.successors(name)) & set(inside)]

    def _is_decode(self, name: str) -> bool:
        return name in self.stages and self.stages[name].kind == "decode"

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
