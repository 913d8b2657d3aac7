"""The spans of stages: when each request was ready, started and finished in every stage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hermes_flow.program.ops import Op
from hermes_flow.program.units import Ints
from hermes_flow.program.work import Forward, Generate
from hermes_flow.recording.recording import OpRecord, Recording


@dataclass(frozen=True, slots=True)
class StageSpans:
    """One stage's tasks, a row per request, in nanoseconds; −1 if it did not happen.

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
        if op.generate and op.comes_apart and record.first_ns is not None:
            spans.extend(_prefill_and_decode(op, op.generate, record, record.first_ns))
        else:
            tokens = handled_tokens(op)
            stage, kind = "+".join(op.stages), "+".join(op.stage_kinds)
            moved = (record.transfer_ns, record.bytes)
            finish = np.where(record.client >= 0, record.finish_ns, -1)
            times = (record.ready_ns, record.start_ns, finish)
            spans.append(StageSpans(stage, kind, op.pool, record.client, *times, tokens, *moved))
    return spans


def handled_tokens(op: Op) -> Ints:
    """Return the tokens that an op handles: its prompt's, or its answer's if it only decodes."""
    work = op.work
    if isinstance(work, Generate):
        return work.prompt if op.kv is None else work.output
    return work.prompt if isinstance(work, Forward) else work.tokens


def _prefill_and_decode(op: Op, work: Generate, record: OpRecord, first_ns: Ints) -> list[StageSpans]:
    prefill, decode = op.serves
    prefilled = (record.client, record.ready_ns, record.start_ns, first_ns)
    finish_ns = np.where(first_ns < 0, -1, record.finish_ns)
    return [
        StageSpans(
            *(prefill.name, prefill.kind, op.pool, *prefilled, work.prompt),
            transfer_ns=record.transfer_ns,
            bytes=record.bytes,
        ),
        StageSpans(
            *(decode.name, decode.kind, op.pool, record.client),
            *(first_ns, first_ns, finish_ns, work.output),
        ),
    ]
