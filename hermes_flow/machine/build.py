"""Builds the clients of a pool and their tasks through the pool's kind."""

from __future__ import annotations

from collections.abc import Sequence

from hermes_flow.pools.client import Calls, PoolClient, PoolTasks
from hermes_flow.pools.kind import kind_called
from hermes_flow.program.program import Program


def build_clients(
    program: Program, index: int, numbers: list[int], calls: Calls, joined: PoolTasks | None
) -> tuple[PoolTasks, Sequence[PoolClient]]:
    """Return the tasks of pool ``index``, which serves the ops ``numbers``, and its clients.

    They serve the tasks ``joined`` where the pool shares the router of another.
    """
    kind = kind_called(program.pools[index].client.kind)
    if joined is not None:
        return joined, kind.join(program, index, joined, calls)
    return kind.build(program, index, numbers, calls)
