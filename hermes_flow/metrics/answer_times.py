"""Finds each request's answer: the op that wrote it, the times of its tokens, and their number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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

    Of an answer that was paused, that is all its segments.
    """
    program, count = recording.program, len(recording.program.requests)
    first, finish, model = (np.full(count, -1, dtype=np.int64) for _ in range(3))
    output = np.zeros(count, dtype=np.int64)
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
            first = np.where(here, record.first_ns, first)
        finish = np.where(here, record.finish_ns, finish)
        asked = here | (failed if op.taken is None else failed & op.taken)
        output = np.where(asked, work.output if work.written is None else work.written + work.output, output)
        model = np.where(asked, models.index(client.model), model)
    return Answers(first, finish, output, model, tuple(models))
