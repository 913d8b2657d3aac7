"""Ops back to stages: when each request was ready, started and finished in every stage a user wrote."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hermes_flow.program.ops import Op
from hermes_flow.program.units import Ints
from hermes_flow.recording.recording import OpRecord, Recording


@dataclass(frozen=True, slots=True)
class StageSpans:
    """One stage's tasks, a row per request, in nanoseconds; -1 where it did not happen.

    ``pool`` is an index into the program's pools, ``client`` counts within the pool.
    """

    stage: str
    kind: str
    pool: int
    client: Ints
    ready_ns: Ints
    start_ns: Ints
    finish_ns: Ints
    tokens: Ints | None
    transfer_ns: Ints | None = None
    bytes: Ints | None = None


def stage_spans(recording: Recording) -> list[StageSpans]:
    """Return every stage's spans, in the order of the program's ops.

    A fused prefill and decode come apart at the first token: the decode is ready and starts there. Tokens are
    those of the prompt for a prefill, of the output for a decode.
    """
    spans: list[StageSpans] = []
    for op, record in zip(recording.program.ops, recording.ops, strict=True):
        if op.kind == "generate" and len(op.stages) == 2 and record.first_ns is not None:
            spans.extend(_prefill_and_decode(op, record, record.first_ns))
        else:
            tokens = op.tokens
            if op.kind == "generate":
                tokens = op.prompt if op.kv_from is None else op.output
            stage, kind = "+".join(op.stages), "+".join(op.stage_kinds)
            moved = (record.transfer_ns, record.bytes)
            finish = np.where(record.client >= 0, record.finish_ns, -1)
            times = (record.ready_ns, record.start_ns, finish)
            spans.append(StageSpans(stage, kind, op.pool, record.client, *times, tokens, *moved))
    return spans


def _prefill_and_decode(op: Op, record: OpRecord, first_ns: Ints) -> list[StageSpans]:
    (prefill, decode), (prefill_kind, decode_kind) = op.stages, op.stage_kinds
    prefilled = (record.client, record.ready_ns, record.start_ns, first_ns)
    finish_ns = np.where(first_ns < 0, -1, record.finish_ns)
    return [
        StageSpans(prefill, prefill_kind, op.pool, *prefilled, op.prompt),
        StageSpans(decode, decode_kind, op.pool, record.client, first_ns, first_ns, finish_ns, op.output),
    ]
