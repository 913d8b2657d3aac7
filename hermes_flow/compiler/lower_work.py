"""Phase 5: asks each kind of pool what work its stages give to its clients."""

from __future__ import annotations

from collections.abc import Sequence

from hermes_flow.pools.kind import AskedWork, Lowering, kind_called
from hermes_flow.program.ops import ContextEdge
from hermes_flow.program.work import Work
from hermes_flow.stages.placed import PlacedStage


def lower_work(placed: Sequence[PlacedStage], lowering: Lowering) -> AskedWork:
    """Return the work of the placed stages, in their order; stages with a problem are left out."""
    kinds = [pool.kind for pool in lowering.cluster.pools.values()]
    work: dict[int, Work] = {}
    contexts: dict[int, ContextEdge] = {}
    for kind in dict.fromkeys(kinds):
        places = [place for place, own in enumerate(placed) if kinds[own.pool] == kind]
        found = kind_called(kind).lower_work(placed, places, lowering)
        work.update(found.work)
        contexts.update(found.contexts)
    return AskedWork(dict(sorted(work.items())), contexts)
