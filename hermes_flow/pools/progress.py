"""How far the work on a task was when the client that had it failed."""

from __future__ import annotations

from typing import NamedTuple


class Progress(NamedTuple):
    """What was done of a task, in tokens.

    ``prompt`` are the tokens of its prompt that were computed or found, by all steps that had been planned, and
    ``answer`` those of its answer that had left the client. The last of these left at ``last_ps``; -1 where none has.
    """

    prompt: int
    answer: int
    last_ps: int


NOTHING = Progress(0, 0, -1)
