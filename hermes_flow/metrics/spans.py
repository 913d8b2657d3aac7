"""The spans of stages: when each request was ready, started and finished in every stage."""

from __future__ import annotations

import numpy as np

from hermes_flow.program.ops import Op
from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.program.units import Ints
from hermes_flow.program.work import Forward, Generate
from hermes_flow.recording.recording import Recording


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


@dataclass(frozen=True, slots=True)
class SpanPlace:
    """A stage of the tables: its name, kind and pool, and the op of whose tasks it is made.

    ``part`` is 0 for the prefill and 1 for the decode of an op that comes apart; None for a whole op.
    """

    stage: str
    kind: str
    pool: int
    op: int
    part: int | None = None


def span_places(recording: Recording) -> list[SpanPlace]:
    """Return the stages of the tables, in the order of the program's ops."""
    places: list[SpanPlace] = []
    for number, (op, record) in enumerate(zip(recording.program.ops, recording.ops, strict=True)):
        if op.comes_apart and record.first_ns is not None:
            places.extend(
                SpanPlace(own.name, own.kind, op.pool, number, part) for part, own in enumerate(op.serves)
            )
        else:
            places.append(SpanPlace("+".join(op.stages), "+".join(op.stage_kinds), op.pool, number))
    return places


def stage_spans(recording: Recording) -> list[StageSpans]:
    """Return every stage's spans, in the order of the program's ops.

    A fused prefill and decode come apart at the first token: the decode is ready and starts there. Tokens are
    those of the prompt for a prefill, of the output for a decode.
    """
    return [span_at(recording, place) for place in span_places(recording)]


def span_at(recording: Recording, place: SpanPlace) -> StageSpans:
    """Return the spans of one stage."""
    op, record = recording.program.ops[place.op], recording.ops[place.op]
    named = (place.stage, place.kind, place.pool, record.client)
    if place.part is None:
        finish = np.where(record.client >= 0, record.finish_ns, -1)
        moved = (record.transfer_ns, record.bytes)
        return StageSpans(*named, record.ready_ns, record.start_ns, finish, handled_tokens(op), *moved)
    first_ns, work = record.first_ns, op.generate
    assert first_ns is not None
    assert work is not None
    if place.part == 0:
        moved = (record.transfer_ns, record.bytes)
        return StageSpans(*named, record.ready_ns, record.start_ns, first_ns, work.prompt, *moved)
    finish = np.where(first_ns < 0, -1, record.finish_ns)
    return StageSpans(*named, first_ns, first_ns, finish, work.output)


def handled_tokens(op: Op) -> Ints:
    """Return the tokens that an op handles: its prompt's, or its answer's if it only decodes."""
    work = op.work
    if isinstance(work, Generate):
        return work.prompt if op.kv is None else work.output
    return work.prompt if isinstance(work, Forward) else work.tokens
