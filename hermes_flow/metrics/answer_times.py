"""Finds each request's answer: the op that wrote it, the times of its tokens, and their number."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.program.units import Ints
from hermes_flow.recording.recording import Recording


@dataclass(frozen=True, slots=True)
class Answers:
    """The answer of each request, in nanoseconds and tokens; −1 (tokens: 0) if it has none.

    ``model`` counts in ``models``. Of failed requests tokens and model are those of the answer that was to be.
    """

    first_ns: Ints
    finish_ns: Ints
    output_tokens: Ints
    model: Ints
    models: tuple[str, ...]


def answers(recording: Recording) -> Answers:
    """Return the answers: for each request, the result of the last op that writes one.

    Of an answer that was paused, that is all its segments. With sites the times are those at which its user has the
    tokens.
    """
    program, count = recording.program, len(recording.program.requests)
    first = finish = model = _all(-1, count)
    output = _all(0, count)
    models: list[str] = []
    failed = recording.status != 0
    for index in program.answers:
        op, record = program.ops[index], recording.ops[index]
        client, work = program.pools[op.pool].client, op.generate
        if record.first_ns is None or client.model is None or work is None:
            continue
        if client.model not in models:
            models.append(client.model)
        here = record.client >= 0
        if work.written is None:  # else: the answer began before a pause
            first = _either(here, record.first_ns, first)
        finish = _either(here, record.finish_ns, finish)
        asked = here | (failed if op.taken is None else failed & op.taken)
        output = _either(asked, work.output if work.written is None else work.written + work.output, output)
        model = _either(asked, _all(models.index(client.model), count), model)
    if recording.travel is not None:
        back = recording.travel.back_ns
        first, finish = (np.where(at >= 0, at + back, at) for at in (first, finish))
    return Answers(first, finish, output, model, tuple(models))


def _all(value: int, count: int) -> Ints:
    """Return ``count`` times the same value, which takes no memory."""
    return np.broadcast_to(np.int64(value), (count,))


def _either(here: NDArray[np.bool_], values: Ints, others: Ints) -> Ints:
    """Return the values where ``here``, else the others; no copy is made where all are ``here``."""
    return values if here.all() else np.where(here, values, others)
