"""A pipeline as a graph of typed stages, for the phases of the compiler."""

from __future__ import annotations

from dataclasses import field
from typing import Any, Literal

from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.stages.kind import Role, StageKind, role_of
from hermes_flow.stages.stage_options import StageOptions as StageOptions


@dataclass(frozen=True, slots=True)
class Stage:
    """One parsed stage; ``key`` is its full config key."""

    name: str
    key: str
    kind: str
    params: StageKind
    options: StageOptions

    @property
    def role(self) -> Role:
        """What the stage does for an answer."""
        return role_of(self.params)


@dataclass(frozen=True, slots=True)
class RouteByLoad:
    """A route by load: the first outcome whose pool is below its limit per client; the last one has no limit.

    ``measure`` is what is counted: unfinished requests, or the tokens known to be still processed.
    """

    measure: str
    limits: dict[str, float]
    last: str

    @property
    def outcomes(self) -> tuple[str, ...]:
        """The outcomes in the order of their test."""
        return (*self.limits, self.last)


@dataclass(frozen=True, slots=True)
class Graph:
    """Stages by name in topological order, with the valid loops and routes of the pipeline.

    ``load_routes`` are the routes that loads decide, ``routes`` the others.
    With ``parts`` it is several pipelines in one, and every name begins with its part's and a dot.
    """

    stages: dict[str, Stage]
    loops: dict[str, Any] = field(default_factory=dict)
    routes: dict[str, dict[str, Any]] = field(default_factory=dict)
    load_routes: dict[str, RouteByLoad] = field(default_factory=dict)
    parts: tuple[str, ...] = ()

    def part_of(self, name: str) -> str:
        """Return the part of a stage, loop or route; it is "" without parts."""
        return name.partition(".")[0] if self.parts else ""

    def own_name(self, name: str) -> str:
        """Return the name of a stage, loop or route within its part."""
        return name.partition(".")[2] if self.parts else name

    def key(self, section: Literal["loops", "routes"], name: str) -> str:
        """Return the full config key of a loop or route."""
        above = f"pipeline.parts.{self.part_of(name)}" if self.parts else "pipeline"
        return f"{above}.{section}.{self.own_name(name)}"

    def successors(self, name: str) -> list[str]:
        """Return the stages that come directly after ``name``."""
        return [stage.name for stage in self.stages.values() if name in stage.options.after]

    def decode_of(self, stage: Stage) -> Stage | None:
        """Return the decode whose branches a stage has: itself, or the decode that it prefills for or scores."""
        if stage.role == "answer":
            return stage
        near: tuple[str, ...] = ()
        if stage.role == "prompt":
            near = tuple(self.successors(stage.name))
        elif stage.role == "score":
            near = stage.options.after
        return next((self.stages[name] for name in near if self._is_decode(name)), None)

    def pausing(self, stage: Stage) -> Stage | None:
        """Return the decode in whose pauses a stage is repeated: itself, its prefill, or a stage during it."""
        during = stage.options.during
        if during is None and stage.role not in ("prompt", "answer"):
            return None
        decode = self.decode_of(stage) if during is None else self.stages.get(during)
        if decode is None or decode.options.pause is None:
            return None
        return decode if decode.options.branches == 1 and decode.options.repeat is None else None

    def decided(self, stage: Stage) -> tuple[str, str] | None:
        """Return the route by load and the outcome that decide who takes a stage; None if there is none."""
        for name, outcome in stage.options.route.items():
            if name in self.load_routes:
                return name, outcome
        decode = self.watched(stage)
        if stage.options.during is not None:
            decode = self.pausing(stage)
        if stage.role == "answer":  # who skips the prefill has nothing to decode
            decode = next((self.stages[name] for name in stage.options.after if name in self.stages), None)
        return None if decode is None else self.decided(decode)

    def watched(self, stage: Stage) -> Stage | None:
        """Return the decode whose answer a guard reads during generation; None if it does not."""
        if stage.role != "guard":
            return None
        from hermes_flow.stages.guard import Guard

        assert isinstance(stage.params, Guard)
        if stage.params.every_tokens is None or len(stage.options.after) != 1:
            return None
        decode = self.stages.get(stage.options.after[0])
        if decode is None or decode.role != "answer" or decode.options.pause is not None:
            return None
        looped = decode.options.repeat is not None or stage.options.repeat is not None
        return None if looped or decode.options.branches > 1 or stage.options.during is not None else decode

    def last_of_pause(self, decode: str) -> list[str]:
        """Return the stages in a decode's pauses without a successor among them."""
        inside = [stage.name for stage in self.stages.values() if stage.options.during == decode]
        return [name for name in inside if not set(self.successors(name)) & set(inside)]

    def _is_decode(self, name: str) -> bool:
        return name in self.stages and self.stages[name].role == "answer"

    def before(self, name: str) -> list[Stage]:
        """Return all stages that come before ``name``, in order."""
        found = set(self.stages[name].options.after)
        for stage in reversed(self.stages.values()):
            if stage.name in found:
                found.update(stage.options.after)
        return [stage for stage in self.stages.values() if stage.name in found]

    def last_of_loop(self, loop: str) -> list[str]:
        """Return the stages of a loop without a successor in it."""
        inside = [stage.name for stage in self.stages.values() if stage.options.repeat == loop]
        return [name for name in inside if not set(self.successors(name)) & set(inside)]
