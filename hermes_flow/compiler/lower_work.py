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
    _check_measured(placed, lowering)
    work: dict[int, Work] = {}
    contexts: dict[int, ContextEdge] = {}
    for kind in dict.fromkeys(kinds):
        places = [place for place, own in enumerate(placed) if kinds[own.pool] == kind]
        found = kind_called(kind).lower_work(placed, places, lowering)
        work.update(found.work)
        contexts.update(found.contexts)
    return AskedWork(dict(sorted(work.items())), contexts)


def _check_measured(placed: Sequence[PlacedStage], lowering: Lowering) -> None:
    """Append a problem for each stage with measured times on a pool that cannot take any."""
    pools = list(lowering.cluster.pools.items())
    for own in placed:
        name, pool = pools[own.pool]
        if own.known_ns is None or kind_called(pool.kind).measured:
            continue
        key = f"{own.stage.key}.measured" if own.stage.options.measured else "workload.path"
        problem = (
            f"{key}: stage {own.stage.name!r} has measured times, which a pool of kind {pool.kind!r} cannot take "
            f"({name}); serve it by a pool of kind sequential"
        )
        if problem not in lowering.problems:
            lowering.problems.append(problem)
