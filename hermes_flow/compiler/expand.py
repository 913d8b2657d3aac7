"""Stages to instances: a loop's stages once for every iteration, a decode's branches side by side.

An instance is one occurrence of a stage in the requests' itineraries. Iterations follow each other: the first stages
of one come after the last of the one before; what comes after the loop comes after its last iteration, which
requests of fewer iterations skip.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hermes_flow.compiler.parse import Graph, Stage


@dataclass(frozen=True, slots=True)
class Instance:
    """One occurrence of a stage; ``after`` are names of instances.

    ``twin`` is the instance of the first branch, whose prompt a prefill of another branch shares. ``continues`` is
    the decode whose prompt and answer the prompt of this prefill begins with.
    """

    name: str
    stage: Stage
    after: tuple[str, ...]
    iteration: int = 0
    branch: int = 0
    twin: str | None = None
    continues: str | None = None


def expand(graph: Graph, iterations: Mapping[str, int]) -> list[Instance]:
    """Return the instances in topological order; ``iterations`` is how often each loop runs at most."""
    copies = {
        (stage.name, turn): stage
        for turn in range(max(iterations.values(), default=1))
        for stage in graph.stages.values()
        if turn < _turns(stage, iterations)
    }
    after = {node: _after(graph, node, iterations) for node in copies}
    instances: list[Instance] = []
    for node in _ordered(after):
        stage, turn = copies[node], node[1]
        decode = stage if stage.kind == "decode" else graph.decode_of(stage)
        for branch in range(1 if decode is None else decode.options.branches):
            before: list[str] = []
            for name, earlier in after[node]:
                before += _names(graph, name, earlier, branch if stage.kind == "decode" else None)
            first = branch == 0 or stage.kind == "decode"
            instances.append(
                Instance(
                    name=_name(stage.name, turn, branch),
                    stage=stage,
                    after=tuple(before),
                    iteration=turn,
                    branch=branch,
                    twin=None if first else _name(stage.name, turn, 0),
                    continues=_continued(graph, stage, turn, iterations) if stage.kind == "prefill" else None,
                )
            )
    return instances


def ancestors(instances: list[Instance]) -> dict[str, frozenset[str]]:
    """Return, for every instance, all that come before it."""
    found: dict[str, frozenset[str]] = {}
    for instance in instances:
        found[instance.name] = frozenset(instance.after).union(*(found[name] for name in instance.after))
    return found


def _turns(stage: Stage, iterations: Mapping[str, int]) -> int:
    return iterations.get(stage.options.repeat or "", 1)


def _after(graph: Graph, node: tuple[str, int], iterations: Mapping[str, int]) -> list[tuple[str, int]]:
    """Return the copies of stages that come directly before one, as (stage, iteration)."""
    name, turn = node
    stage = graph.stages[name]
    loop = stage.options.repeat
    before: list[tuple[str, int]] = []
    direct = [other for other in stage.options.after if other in graph.stages]  # others are reported by parsing
    inside = [other for other in direct if loop and graph.stages[other].options.repeat == loop]
    for other in direct:
        if other in inside:
            before.append((other, turn))
        elif turn == 0 or inside:
            before.append((other, _turns(graph.stages[other], iterations) - 1))
    if loop and turn and not inside:
        before += [(last, turn - 1) for last in graph.last_of_loop(loop)]
    return before


def _ordered(after: Mapping[tuple[str, int], list[tuple[str, int]]]) -> list[tuple[str, int]]:
    """Return the nodes with predecessors first, else in the order given."""
    ordered: dict[tuple[str, int], None] = {}
    left = list(after)
    while left:
        ready = next(node for node in left if all(before in ordered for before in after[node]))
        ordered[ready] = None
        left.remove(ready)
    return list(ordered)


def _names(graph: Graph, name: str, turn: int, branch: int | None) -> list[str]:
    """Return the instances of a copy that one comes after: its own branch's, or those of all branches."""
    stage = graph.stages[name]
    decode = stage if stage.kind == "decode" else graph.decode_of(stage)
    branches = 1 if decode is None else decode.options.branches
    if branch is not None and stage.kind == "prefill":
        return [_name(name, turn, branch)]
    return [_name(name, turn, each) for each in range(branches)]


def _continued(graph: Graph, prefill: Stage, turn: int, iterations: Mapping[str, int]) -> str | None:
    """Return the decode that a prompt goes on from: the one it names, or in a loop that of the turn before."""
    named = prefill.options.continues
    loop = prefill.options.repeat
    if loop:
        earlier = [
            stage.name
            for stage in graph.before(prefill.name)
            if stage.kind == "decode" and stage.options.repeat == loop
        ]
        if earlier:
            return _name(earlier[-1], turn, 0)
        decodes = [
            stage.name
            for stage in graph.stages.values()
            if stage.kind == "decode" and stage.options.repeat == loop
        ]
        if turn and decodes:
            return _name(decodes[-1], turn - 1, 0)
    if named not in graph.stages:
        return None
    return _name(named, _turns(graph.stages[named], iterations) - 1, 0)


def _name(stage: str, turn: int, branch: int) -> str:
    return stage + (f".{turn + 1}" if turn else "") + (f"/{branch + 1}" if branch else "")
