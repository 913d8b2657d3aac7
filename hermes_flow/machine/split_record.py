"""Splits the record of ops behind a shared router by the pool that served them."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hermes_flow.program.ops import Op
from hermes_flow.program.program import Program
from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.program.work import Generate
from hermes_flow.recording.recording import OpRecord

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class SplitOp:
    """An op on one pool, with its record; ``number`` is what it was in the program that has run."""

    number: int
    op: Op
    record: OpRecord


def split_by_pool(program: Program, records: list[OpRecord]) -> list[SplitOp]:
    """Return every op once for each pool whose clients have served it.

    An op that receives KV is there for each pool that has sent it, too.
    """
    if all(pool.joins is None for pool in program.pools):
        ops = zip(program.ops, records, strict=True)
        return [SplitOp(number, op, record) for number, (op, record) in enumerate(ops)]
    split: list[SplitOp] = []
    places: list[list[int]] = []  # op of the program → those that it became
    for number, (op, record) in enumerate(zip(program.ops, records, strict=True)):
        found = []
        first = 0
        senders = [None] if op.kv is None else places[op.kv.source]
        if len(senders) == 1 and program.sharing(op.pool) == (op.pool,):
            places.append([len(split)])
            split.append(SplitOp(number, _of_pool(op, op.pool, op.taken, places, senders[0]), record))
            continue
        for pool in program.sharing(op.pool):
            here = (record.client >= first) & (record.client < first + program.pools[pool].count)
            for sender in senders:
                mask = here if sender is None else here & (split[sender].record.client >= 0)
                found.append(len(split))
                own = _of_pool(op, pool, mask, places, sender)
                split.append(SplitOp(number, own, _masked(record, mask, first)))
            first += program.pools[pool].count
        places.append(found)
    return split


def _of_pool(op: Op, pool: int, mask: Mask | None, places: list[list[int]], sender: int | None) -> Op:
    """Return the op as served on one pool for the requests in ``mask``, with the edges between the split ops."""

    def became(number: int) -> list[int]:
        if sender is not None and op.kv is not None and number == op.kv.source:
            return [sender]
        return places[number]

    work = op.work
    if isinstance(work, Generate) and work.extends is not None:
        sources = tuple(place for number in work.extends.sources for place in places[number])
        work = replace(work, extends=replace(work.extends, sources=sources))
    return replace(
        op,
        pool=pool,
        work=work,
        taken=mask,
        after=tuple(place for number in op.after for place in became(number)),
        with_op=None if op.with_op is None else places[op.with_op][0],
        kv=None if op.kv is None or sender is None else replace(op.kv, source=sender),
        data=tuple(replace(edge, source=place) for edge in op.data for place in places[edge.source]),
        context=None if op.context is None else replace(op.context, source=places[op.context.source][0]),
    )


def _masked(record: OpRecord, mask: Mask, first: int) -> OpRecord:
    """Return the record with -1 for the requests that are not in ``mask``; clients count from ``first``."""
    columns: dict[str, Any] = {field.name: getattr(record, field.name) for field in fields(record)}
    columns["client"] = record.client - first
    del columns["tier_hits"]
    for name, column in columns.items():
        columns[name] = None if column is None else np.where(mask, column, -1)
    hits = record.tier_hits
    if hits is not None:
        hits = {tier: np.where(mask, tokens, -1) for tier, tokens in hits.items()}
    return OpRecord(**columns, tier_hits=hits)
