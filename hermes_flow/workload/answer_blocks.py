"""Block ids of the answers in a trace; they continue the ids of the prompts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hermes_flow.errors import TraceError
from hermes_flow.program.prefixes import Prefixes
from hermes_flow.program.units import Ints
from hermes_flow.workload.traces.files import Placed


@dataclass(frozen=True, slots=True)
class AnswerBlocks:
    """The ids of the blocks that end in each answer: ``counts`` of them per row, all of them in ``ids``."""

    counts: Ints
    ids: Ints


def with_answers(
    prefixes: Prefixes | None, answers: AnswerBlocks, prompt: Ints, output: Ints, file: Placed
) -> Prefixes:
    """Return the prefixes with the ids of the answers behind those of the prompts, row by row.

    Raises TraceError at the first row whose prompt has not an id for each full block, or whose answer has more ids
    than blocks end in it.
    """
    if prefixes is None:
        raise TraceError(str(file.path), file.header_line, "has answer_hashes but no prefix_hashes")
    size, counts = prefixes.block_tokens, np.diff(prefixes.offsets)
    full, ending = prompt // size, (prompt + output) // size - prompt // size
    for wrong, problem in (
        (
            (answers.counts > 0) & (counts < full),
            "answer_hashes needs a prefix_hashes id for each full block",
        ),
        (
            answers.counts > ending,
            f"answer_hashes has more ids than blocks of {size} tokens end in the answer",
        ),
    ):
        rows = np.flatnonzero(wrong)
        if len(rows):
            line, row = file.place(int(rows[0]))
            raise TraceError(str(file.path), line, row + problem)
    kept = np.where(
        answers.counts > 0, np.minimum(counts, full), counts
    )  # a last, partial block is named anew
    place = np.arange(len(prefixes.ids)) - np.repeat(prefixes.offsets[:-1], counts)
    own = prefixes.ids[place < np.repeat(kept, counts)]
    total = kept + answers.counts
    offsets = np.concatenate(([0], np.cumsum(total)))
    ids = np.empty(int(offsets[-1]), dtype=np.int64)
    within = np.arange(len(ids)) - np.repeat(offsets[:-1], total)
    of_prompt = within < np.repeat(kept, total)
    ids[of_prompt], ids[~of_prompt] = own, answers.ids
    return Prefixes(ids, offsets, size, answers=True)
