"""Pass 4: stages to ops; a prefill and its decode on one pool become one ``generate``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from hermes_flow.compiler.materialize import StageTasks
from hermes_flow.compiler.parse import Graph, Stage
from hermes_flow.compiler.program import Ints, Op


def fuse(
    graph: Graph, placement: Mapping[str, str], tasks: Mapping[str, StageTasks], pools: Sequence[str]
) -> tuple[Op, ...]:
    """Return the ops in topological order; ``pools`` are the names that op.pool counts in."""
    ops: list[Op] = []
    op_of: dict[str, int] = {}
    for stage in graph.stages.values():
        if stage.name in op_of:
            continue  # made with its prefill
        after = tuple(sorted({op_of[before] for before in stage.options.after}))
        pool = pools.index(placement[stage.name])
        own = tasks[stage.name]
        op_of[stage.name] = len(ops)
        if stage.kind == "prefill":
            decode = _decode_of(graph, stage)
            together = decode is not None and placement[decode.name] == placement[stage.name]
            if decode is not None and together:
                op_of[decode.name] = len(ops)
            ops.append(_generate(stage, decode if together else None, tasks, pool, after))
        elif stage.kind == "decode":
            ops.append(_decode(stage, ops[after[0]], own, pool, after))
        else:
            ops.append(_sequential(stage, own, pool, after))
    return tuple(ops)


def _decode_of(graph: Graph, prefill: Stage) -> Stage | None:
    names = [name for name in graph.successors(prefill.name) if graph.stages[name].kind == "decode"]
    return graph.stages[names[0]] if names else None


def _sequential(stage: Stage, own: StageTasks, pool: int, after: tuple[int, ...]) -> Op:
    return Op(
        name=stage.name,
        kind=stage.kind,
        stages=(stage.name,),
        stage_kinds=(stage.kind,),
        pool=pool,
        after=after,
        taken=own.taken,
        service_ns=own.service_ns,
        tokens=own.tokens,
    )


def _generate(
    prefill: Stage, decode: Stage | None, tasks: Mapping[str, StageTasks], pool: int, after: tuple[int, ...]
) -> Op:
    """A prefill, with its decode if that is on the same pool; a prefill by itself generates one token."""
    own = tasks[prefill.name]
    name = prefill.name
    stages: tuple[str, ...] = (prefill.name,)
    kinds: tuple[str, ...] = ("prefill",)
    output = np.ones_like(own.tokens)
    if decode is not None:
        name = "generate" if prefill.name == "prefill" else f"{prefill.name}+{decode.name}"
        stages, kinds = (prefill.name, decode.name), ("prefill", "decode")
        output = _outputs(tasks[decode.name])
    return Op(
        name=name,
        kind="generate",
        stages=stages,
        stage_kinds=kinds,
        pool=pool,
        after=after,
        taken=own.taken,
        prompt=own.tokens,
        output=output,
    )


def _decode(decode: Stage, prefill: Op, own: StageTasks, pool: int, after: tuple[int, ...]) -> Op:
    """A decode on a pool of its own; a request whose only token the prefill has emitted does not take it."""
    output = _outputs(own)
    taken = output > 1
    if prefill.taken is not None:
        taken &= prefill.taken
    return Op(
        name=decode.name,
        kind="generate",
        stages=(decode.name,),
        stage_kinds=("decode",),
        pool=pool,
        after=after,
        taken=taken,
        prompt=prefill.prompt,
        output=output,
        kv_from=after[0],
    )


def _outputs(tasks: StageTasks) -> Ints:
    """Tokens to generate: a request that skips the decode still gets the token its prefill emits."""
    return tasks.tokens if tasks.taken is None else np.where(tasks.taken, tasks.tokens, 1)
