"""Repeats stages for every iteration of a loop, every branch of a decode and every pause.

An instance is one occurrence of a stage in the requests' itineraries. Iterations follow each other: the first stages
of one come after the last of the one before; what comes after the loop comes after its last iteration, which
requests of fewer iterations skip. A decode that pauses is repeated with its prefill, once for every segment of its
answer; before all but the first come the stages during its pauses. A guard that reads an answer while it is written
is repeated for every check, all of them after the decode.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias

from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.stages.graph import Graph, Stage

Copy: TypeAlias = tuple[str, int]  # a stage in one iteration


@dataclass(frozen=True, slots=True)
class Instance:
    """One occurrence of a stage; ``after`` names instances.

    ``twin`` is the instance of the first branch, whose prompt a prefill of another branch shares. The prompt of a
    prefill begins with prompt and answer of the first of the decodes ``continues`` that the request takes, and
    holds the answers of the decodes ``reads``.
    """

    name: str
    stage: Stage
    after: tuple[str, ...]
    iteration: int = 0
    branch: int = 0
    twin: str | None = None
    continues: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()

    @property
    def first_branch(self) -> str:
        """The name of the same instance in the first branch."""
        return instance_name(self.stage.name, self.iteration, 0)


def expand(
    graph: Graph, iterations: Mapping[str, int], segments: Mapping[str, int] | None = None
) -> list[Instance]:
    """Return the instances in topological order.

    ``iterations`` is how often each loop runs at most, ``segments`` how many each decode that pauses has, and
    how many checks each guard that reads while an answer is written.
    """
    turns = {stage.name: _turns(graph, stage, iterations, segments or {}) for stage in graph.stages.values()}
    copies = {
        (stage.name, turn): stage
        for turn in range(max(turns.values(), default=1))
        for stage in graph.stages.values()
        if turn < turns[stage.name] and (turn or stage.options.during is None)
    }
    after = {node: _after(graph, node, turns) for node in copies}
    instances: list[Instance] = []
    for node in _ordered(after):
        stage, turn = copies[node], node[1]
        prefill = stage.role == "prompt"
        for branch in range(branches_of(graph, stage)):
            before = [name for copy in after[node] for name in _names(graph, copy, stage, branch)]
            instances.append(
                Instance(
                    name=instance_name(stage.name, turn, branch),
                    stage=stage,
                    after=tuple(before),
                    iteration=turn,
                    branch=branch,
                    twin=instance_name(stage.name, turn, 0) if prefill and branch else None,
                    continues=tuple(_continued(graph, stage, turn, turns)) if prefill else (),
                    reads=tuple(_read(graph, stage, turn, turns)) if prefill else (),
                )
            )
    return instances


def ancestors(instances: list[Instance]) -> dict[str, frozenset[str]]:
    """Return, for every instance, all that come before it."""
    found: dict[str, frozenset[str]] = {}
    for instance in instances:
        found[instance.name] = frozenset(instance.after).union(*(found[name] for name in instance.after))
    return found


def _turns(graph: Graph, stage: Stage, iterations: Mapping[str, int], segments: Mapping[str, int]) -> int:
    if graph.watched(stage) is not None:
        return segments.get(stage.name, 1)
    decode = graph.pausing(stage)
    return iterations.get(stage.options.repeat or "", 1) if decode is None else segments.get(decode.name, 1)


def branches_of(graph: Graph, stage: Stage) -> int:
    """Return how many branches a stage has: those of its decode, at least one."""
    decode = graph.decode_of(stage)
    return 1 if decode is None else max(1, decode.options.branches)


def _after(graph: Graph, node: Copy, turns: Mapping[str, int]) -> list[Copy]:
    """Return the copies of stages that come directly before one."""
    name, turn = node
    stage = graph.stages[name]
    decode = graph.pausing(stage)
    if decode is not None and (turn or stage is decode):
        return _after_in_pause(graph, stage, decode, turn)
    watched = graph.watched(stage)
    if watched is not None:
        return [(watched.name, 0)]
    loop = stage.options.repeat
    before: list[Copy] = []
    direct = [other for other in stage.options.after if other in graph.stages]  # parsing reports the others
    inside = [other for other in direct if loop and graph.stages[other].options.repeat == loop]
    for other in direct:
        if other in inside:
            before.append((other, turn))
        elif turn == 0 or inside:
            read = graph.watched(graph.stages[other])
            if read is not None:  # what comes after the last check comes after all, and the answer's end
                before += [(read.name, 0), *((other, check) for check in range(turns[other] - 1))]
            before.append((other, turns[other] - 1))
    if loop and turn and not inside:
        before += [(last, turn - 1) for last in graph.last_of_loop(loop)]
    return before


def _after_in_pause(graph: Graph, stage: Stage, decode: Stage, turn: int) -> list[Copy]:
    """Return what comes directly before a segment's decode, its prefill, or a stage in the pause before it."""
    if stage is decode:
        return [(name, turn) for name in stage.options.after if name in graph.stages]
    if stage.options.during is None:
        return [(last, turn) for last in graph.last_of_pause(decode.name)]
    inside = [
        (name, turn)
        for name in stage.options.after
        if name in graph.stages and graph.stages[name] is not decode
    ]
    return inside or [(decode.name, turn - 1)]


def _ordered(after: Mapping[Copy, list[Copy]]) -> list[Copy]:
    """Return the nodes with predecessors first, else in the order given; without cycles, which parsing reports."""
    ordered: dict[Copy, None] = {}
    left = dict.fromkeys(after)
    while left:
        ready = next((node for node in left if all(before in ordered for before in after[node])), None)
        if ready is None:
            break
        ordered[ready] = None
        del left[ready]
    return list(ordered)


def _names(graph: Graph, copy: Copy, stage: Stage, branch: int) -> list[str]:
    """Return the instances of a copy that ``stage`` comes after: its own branch's, or those of all branches."""
    name, turn = copy
    before = graph.stages[name]
    decode = graph.decode_of(stage)
    if stage.role != "prompt" and decode is not None and decode is graph.decode_of(before):
        return [instance_name(name, turn, branch)]
    return [instance_name(name, turn, each) for each in range(branches_of(graph, before))]


def _continued(graph: Graph, prefill: Stage, turn: int, turns: Mapping[str, int]) -> Iterator[str]:
    """Yield the decodes that a prompt may go on from, the latest first.

    In a loop: one before it in the same iteration, else that of the turns before. Then the one that it names. After
    a pause: the segment before.
    """
    pausing = graph.pausing(prefill)
    if pausing is not None and turn:
        yield instance_name(pausing.name, turn - 1, 0)
        return
    named, loop = prefill.options.continues, prefill.options.repeat
    decodes = [
        stage.name
        for stage in graph.stages.values()
        if loop and stage.role == "answer" and stage.options.repeat == loop
    ]
    if named in decodes:
        yield instance_name(named, turn, 0)
    else:
        before = {stage.name for stage in graph.before(prefill.name)}
        yield from (instance_name(name, turn, 0) for name in reversed(decodes) if name in before)
    last = _last_answer(graph, prefill, decodes)
    if last is not None:
        yield from (instance_name(last, earlier, 0) for earlier in reversed(range(turn)))
    if named in graph.stages and named not in decodes:
        yield from (instance_name(named, earlier, 0) for earlier in reversed(range(turns[named])))


def _last_answer(graph: Graph, prefill: Stage, decodes: list[str]) -> str | None:
    """Return which of a loop's decodes the next turn goes on from: the last, or where several are, its own."""
    if not decodes:
        return None
    before_last = {stage.name for stage in graph.before(decodes[-1])}
    if before_last.issuperset(decodes[:-1]):
        return decodes[-1]
    own = graph.decode_of(prefill)
    return None if own is None else own.name


def _read(graph: Graph, prefill: Stage, turn: int, turns: Mapping[str, int]) -> Iterator[str]:
    """Yield the decodes, of all branches and segments, whose answers a prompt holds."""
    for name in prefill.options.reads:
        if name in graph.stages:
            decode = graph.stages[name]
            copies: Iterable[int] = [
                turn if decode.options.repeat == prefill.options.repeat else turns[name] - 1
            ]
            if decode.options.pause is not None:
                copies = range(turns[name])
            # The prompt begins with the answer of the first branch, where it continues the same decode.
            branches = range(name == prefill.options.continues, branches_of(graph, decode))
            yield from (instance_name(name, copy, branch) for copy in copies for branch in branches)


def instance_name(stage: str, turn: int, branch: int = 0) -> str:
    """Return the name of a stage's instance; turns and branches count from 0."""
    return stage + (f".{turn + 1}" if turn else "") + (f"/{branch + 1}" if branch else "")
