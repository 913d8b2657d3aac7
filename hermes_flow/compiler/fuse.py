"""Pass 4: stages to ops; a prefill and its decode on one pool become one ``generate``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

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
        if stage.kind == "decode":
            continue  # made with its prefill
        decode = _decode_of(graph, stage) if stage.kind == "prefill" else None
        after = tuple(sorted({op_of[before] for before in stage.options.after}))
        pool = pools.index(placement[stage.name])
        index = len(ops)
        ops.append(_op(stage, decode, tasks, pool, after))
        op_of[stage.name] = index
        if decode is not None:
            op_of[decode.name] = index
    return tuple(ops)


def _decode_of(graph: Graph, prefill: Stage) -> Stage | None:
    names = [name for name in graph.successors(prefill.name) if graph.stages[name].kind == "decode"]
    return graph.stages[names[0]] if names else None


def _op(
    stage: Stage, decode: Stage | None, tasks: Mapping[str, StageTasks], pool: int, after: tuple[int, ...]
) -> Op:
    own = tasks[stage.name]
    if stage.kind != "prefill":
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
    if decode is None:
        return Op(
            name=stage.name,
            kind="generate",
            stages=(stage.name,),
            stage_kinds=("prefill",),
            pool=pool,
            after=after,
            taken=own.taken,
            prompt=own.tokens,
            output=np.ones_like(own.tokens),
        )
    return Op(
        name="generate" if stage.name == "prefill" else f"{stage.name}+{decode.name}",
        kind="generate",
        stages=(stage.name, decode.name),
        stage_kinds=("prefill", "decode"),
        pool=pool,
        after=after,
        taken=own.taken,
        prompt=own.tokens,
        output=_outputs(tasks[decode.name].tokens, tasks[decode.name].taken),
    )


def _outputs(tokens: Ints, taken: NDArray[np.bool_] | None) -> Ints:
    """Tokens to generate: a request that skips the decode still gets the token its prefill emits."""
    return tokens if taken is None else np.where(taken, tokens, 1)
