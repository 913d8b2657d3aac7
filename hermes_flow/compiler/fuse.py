"""Pass 4: stages to ops; a prefill and its decode on one pool become one ``generate``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hermes_flow.compiler.expand import Instance
from hermes_flow.compiler.materialize import StageTasks, outputs
from hermes_flow.compiler.placement import Placement
from hermes_flow.program.ops import Op


def fuse(
    placement: Placement,
    tasks: Mapping[str, StageTasks],
    pools: Sequence[str],
    models: Mapping[str, NDArray[np.bool_]],
) -> tuple[Op, ...]:
    """Return the ops in topological order; ``pools`` are the names that op.pool counts in.

    ``tasks`` are the instances of stages, predecessors first. One whose stage has a pool for each model becomes an op
    for each, taken by the requests that ask for it (``models``).
    """
    ops: list[Op] = []
    op_of: dict[tuple[str, str], int] = {}
    decodes = {own.instance.after[0]: own for own in tasks.values() if own.instance.stage.kind == "decode"}
    for name, own in tasks.items():
        instance = own.instance
        for model, pool_name in placement[instance.stage.name].items():
            if (name, model) in op_of:
                continue  # made with its prefill
            after = tuple(sorted({op for before in instance.after for op in _before(op_of, before, model)}))
            pool = pools.index(pool_name)
            asked = _asked(own, models, model)
            op_of[name, model] = len(ops)
            if instance.stage.kind == "prefill":
                decode = decodes.get(name)
                if decode is not None:
                    if placement[decode.instance.stage.name].get(model) == pool_name:
                        op_of[decode.instance.name, model] = len(ops)
                        decode = _asked(decode, models, model)
                    else:
                        decode = None
                op = _generate(asked, decode, pool, after)
                op = replace(op, **_content(instance, tasks, op_of, model))
                written = decodes[name].written if name in decodes else None
                if written is not None:  # after a pause: where the KV of what was said is
                    op = replace(op, with_op=op.extends[0], written=written)
            elif instance.stage.kind == "decode":
                op = _decode(asked, ops[after[0]], pool, after)
            elif instance.stage.params.client == "llm":
                op = replace(_forward(asked, pool, after), **_scored(instance, tasks, op_of, model))
                op = replace(op, at_token=own.at_token)
            else:
                op = _sequential(asked, pool, after)
            op = replace(op, decided=own.decided)
            ops.append(replace(op, name=f"{op.name}@{model}") if model else op)
    return tuple(ops)


def _content(
    instance: Instance, tasks: Mapping[str, StageTasks], op_of: Mapping[tuple[str, str], int], model: str
) -> dict[str, Any]:
    """Return what the prompt begins with: another branch's prompt, or an earlier prompt and its answer."""
    if instance.twin is not None:
        twin = op_of[instance.twin, model]
        return {"extends": (twin,), "with_op": twin, "branch": instance.branch}
    prefills = [tasks[decode].instance.after[0] for decode in instance.continues]
    extends = tuple(op for prefill in prefills for op in _before(op_of, prefill, model))
    return {"extends": extends, "extends_answer": bool(extends)}


def _scored(
    instance: Instance, tasks: Mapping[str, StageTasks], op_of: Mapping[tuple[str, str], int], model: str
) -> dict[str, Any]:
    """Return what a reward model's prompt begins with: the prompt and the answer that it scores."""
    if instance.stage.kind != "reward":
        return {}
    prefill = tasks[instance.after[0]].instance.after[0]
    return {"extends": tuple(_before(op_of, prefill, model)), "extends_answer": True}


def _before(op_of: Mapping[tuple[str, str], int], name: str, model: str) -> list[int]:
    """Return the ops of an instance before one for ``model``: the same model's, or else all."""
    if (name, model) in op_of:
        return [op_of[name, model]]
    return [op for (other, _), op in op_of.items() if other == name]


def _asked(tasks: StageTasks, models: Mapping[str, NDArray[np.bool_]], model: str) -> StageTasks:
    """Return a stage's tasks of the requests that ask for ``model``."""
    if not model:
        return tasks
    asked = models[model]
    return replace(tasks, taken=asked if tasks.taken is None else tasks.taken & asked)


def _sequential(own: StageTasks, pool: int, after: tuple[int, ...]) -> Op:
    stage = own.instance.stage
    return Op(
        name=own.instance.name,
        kind=stage.kind,
        stages=(stage.name,),
        stage_kinds=(stage.kind,),
        pool=pool,
        after=after,
        taken=own.taken,
        service_ns=own.service_ns,
        tokens=own.tokens,
    )


def _forward(own: StageTasks, pool: int, after: tuple[int, ...]) -> Op:
    """One forward pass of an LLM over a prompt, whose only token (a verdict, a score) is no answer."""
    op = _sequential(own, pool, after)
    return replace(op, kind="forward", prompt=own.tokens, output=np.ones_like(own.tokens))


def _generate(prefill: StageTasks, decode: StageTasks | None, pool: int, after: tuple[int, ...]) -> Op:
    """A prefill, with its decode if that is on the same pool; a prefill by itself generates one token."""
    name = prefill.instance.name
    stages: tuple[str, ...] = (prefill.instance.stage.name,)
    kinds: tuple[str, ...] = ("prefill",)
    output = np.ones_like(prefill.tokens)
    if decode is not None:
        suffix = name.removeprefix(prefill.instance.stage.name)
        name = (
            f"generate{suffix}"
            if stages == ("prefill",)
            else f"{stages[0]}+{decode.instance.stage.name}{suffix}"
        )
        stages, kinds = (*stages, decode.instance.stage.name), ("prefill", "decode")
        output = outputs(decode)
    return Op(
        name=name,
        kind="generate",
        stages=stages,
        stage_kinds=kinds,
        pool=pool,
        after=after,
        taken=prefill.taken,
        prompt=prefill.tokens,
        output=output,
    )


def _decode(own: StageTasks, prefill: Op, pool: int, after: tuple[int, ...]) -> Op:
    """A decode on a pool of its own; a request whose only token the prefill has emitted does not take it."""
    output = outputs(own)
    taken = output > 1
    if prefill.taken is not None:
        taken &= prefill.taken
    return Op(
        name=own.instance.name,
        kind="generate",
        stages=(own.instance.stage.name,),
        stage_kinds=("decode",),
        pool=pool,
        after=after,
        taken=taken,
        prompt=prefill.prompt,
        output=output,
        branch=own.instance.branch,
        kv_from=after[0],
        written=own.written,
    )
