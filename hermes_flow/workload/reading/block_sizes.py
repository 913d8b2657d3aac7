"""Decides how many tokens a block id of a trace stands for, by counting ids against the tokens of prompts."""

from __future__ import annotations

import numpy as np

from hermes_flow.errors import TraceError
from hermes_flow.program.units import Ints
from hermes_flow.workload.traces.files import Placed

CANDIDATES = (16, 32, 64, 128, 256, 512, 1024, 2048)
_KEY = "workload.prefix_block_tokens"


def block_tokens(
    counts: Ints,
    prompts: Ints,
    given: int | None,
    documented: int | None,
    name: str,
    file: Placed,
    notes: list[str] | None = None,
) -> int:
    """Return the tokens of one block, ``given`` by the user, ``documented`` by the format, or the size that fits.

    ``counts`` are the ids and ``prompts`` the tokens of each row. A prompt has at most an id for each block that it
    begins. Raises TraceError at the first row with more, and where another size fits as well or better; with
    ``notes`` the documented size is certain, and these take a warning instead.
    """
    rows = np.flatnonzero(counts > 0)
    ids, tokens = counts[rows], prompts[rows]
    size = documented if given is None else given
    if size is not None:
        over = np.flatnonzero(ids > -(-tokens // size))
        if len(over):
            row = int(over[0])
            problem = (
                f"{name} has {ids[row]:,} ids for {tokens[row]:,} input tokens, which are at most "
                f"{-(-int(tokens[row]) // size):,} blocks of {size} tokens; {_advice(_fitting(ids, tokens))}"
            )
            raise _error(file, int(rows[row]), problem)
        if given is not None or _fits(ids, tokens, size):
            return size
        others = _fitting(ids, tokens)
        if len(rows) > 1 and ids.max() > 1 and others:
            row = int(np.flatnonzero(ids < tokens // size)[0])
            problem = (
                f"{name} has {ids[row]:,} ids for {tokens[row]:,} input tokens: either they name only the beginning "
                f"of the prompt, in blocks of {size} tokens ({_KEY}={size}), or all of it; {_advice(others)}"
            )
            if notes is not None:
                notes.append(f"{problem}; the first reading is taken")
                return size
            raise _error(file, int(rows[row]), problem)
        return size
    fitting = _fitting(ids, tokens)
    if len(fitting) == 1 or not len(rows):
        return fitting[0]
    problem = f"{name} has {ids[0]:,} ids for {tokens[0]:,} input tokens; {_advice(fitting)}"
    raise _error(file, int(rows[0]), problem)


def _advice(fitting: list[int]) -> str:
    if not fitting:
        return f"set {_KEY} to the tokens of a block"
    sizes = " or ".join(f"{_KEY}={size}" for size in fitting)
    return f"every row would fit {sizes}; set it"


def _fitting(ids: Ints, tokens: Ints) -> list[int]:
    return [size for size in CANDIDATES if _fits(ids, tokens, size)]


def _fits(ids: Ints, tokens: Ints, size: int) -> bool:
    """Whether every prompt has an id for each of its blocks, the last partial one included or not."""
    full = tokens // size
    return bool(np.all((ids == full) | (ids == -(-tokens // size))))


def _error(file: Placed, row: int, problem: str) -> TraceError:
    line, words = file.place(row)
    return TraceError(str(file.path), line, words + problem)
