"""Phase 7: builds the ops of the program with the edges between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hermes_flow.pools.kind import AskedWork
from hermes_flow.program.ops import DataEdge, KVEdge, Op, ServedStage
from hermes_flow.stages.placed import PlacedStage


def link(
    placed: Sequence[PlacedStage],
    asked: AskedWork,
    kv: Mapping[int, KVEdge],
    data: Mapping[int, tuple[DataEdge, ...]],
) -> tuple[Op, ...]:
    """Return the ops, one for each placed stage and in the same order.

    ``kv`` is what decodes receive, by place, and ``data`` what other stages do.
    """
    return tuple(
        Op(
            name=own.name,
            serves=tuple(ServedStage(stage.name, stage.kind) for stage in own.stages),
            pool=own.pool,
            after=own.after,
            work=asked.work[place],
            taken=own.taken,
            decided=own.decided,
            with_op=own.with_op,
            at_token=own.at_token,
            kv=kv.get(place),
            context=asked.contexts.get(place),
            data=data.get(place, ()),
        )
        for place, own in enumerate(placed)
    )
