"""The tasks of one instance of a stage, one for each request that takes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hermes_flow.compiler.expand import Instance
from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.program.units import Ints

if TYPE_CHECKING:
    from hermes_flow.compiler.given_sizes import Given

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class StageTasks:
    """The tasks of one instance: its requests (None: all), their tokens and, on a host, their core time.

    Tokens are those of the prompt for a prefill, of the answer for a decode. ``adds`` are tokens that what it found
    adds to the prompts after it. ``written`` are, for a segment of an answer that was paused, the tokens before it;
    ``at_token`` is, for a guard that reads an answer while it is written, with which of its tokens the check begins.
    ``decided`` is the route that decides by load which of those who take it do, and the outcome. ``known_ns`` is the
    measured time of each task, UNKNOWN where there is none. ``given`` is what the trace lists of the instance.
    """

    instance: Instance
    taken: Mask | None
    tokens: Ints
    service_ns: Ints | None = None
    adds: Ints | None = None
    written: Ints | None = None
    at_token: Ints | None = None
    decided: tuple[int, int] | None = None
    known_ns: Ints | None = None
    given: Given | None = None


def prefill_of(decode: StageTasks, tasks: Mapping[str, StageTasks]) -> StageTasks | None:
    """Return the prefill that a decode comes after; None where there is a mistake."""
    names = decode.instance.after
    return tasks.get(names[0]) if names and names[0] in tasks else None


def added_tokens(names: Iterable[str], tasks: Mapping[str, StageTasks], count: int) -> Ints:
    """Return the tokens that the instances ``names`` add to the prompts after them; there are ``count`` requests."""
    total = np.zeros(count, dtype=np.int64)
    for name in sorted(names):
        own = tasks.get(name)
        if own is not None and own.adds is not None:
            total += own.adds if own.taken is None else np.where(own.taken, own.adds, 0)
    return total


def outputs(tokens: Ints, taken: Mask | None) -> Ints:
    """Return the tokens of a decode's answers; a request that skips it still has its prefill's token."""
    return tokens if taken is None else np.where(taken, tokens, 1)
