"""Compiles guards that read an answer while it is written: the chunks they check, and where they stop it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hermes_flow.program.units import Ints
from hermes_flow.stages.graph import Stage
from hermes_flow.stages.guard import Guard


def stopped_at(guard: Guard, answer: Ints, taken: NDArray[np.bool_] | None, rng: np.random.Generator) -> Ints:
    """Return the check, counted from 1, at which the guard stops each answer; 0 if it does not.

    All checks of an answer that is stopped are alike. What is drawn for a request does not depend on ``stop_share``.
    """
    every = guard.every_tokens
    assert every is not None
    drawn, place = rng.random(len(answer)), rng.random(len(answer))
    checks = -(-answer // every)
    stops = drawn < guard.stop_share
    if taken is not None:
        stops &= taken
    chosen: Ints = np.where(stops, 1 + (place * checks).astype(np.int64), 0)
    return chosen


def cut_answer(guard: Guard, answer: Ints, stopped: Ints) -> Ints:
    """Return the lengths of stopped answers: up to the end of the chunk, plus tokens until the guard decides."""
    every = guard.every_tokens
    assert every is not None
    written: Ints = np.where(stopped > 0, np.minimum(answer, stopped * every + guard.lag_tokens), answer)
    return written


def check_count(guard: Guard, answer: Ints, stopped: Ints) -> Ints:
    """Return how many checks each answer has: one per chunk, up to the check that stops it."""
    every = guard.every_tokens
    assert every is not None
    checks = -(-answer // every)
    count: Ints = np.where(stopped > 0, np.minimum(stopped, checks), checks)
    return count


def check_streaming(stages: Mapping[str, Stage], problems: list[str]) -> None:
    """Append a problem for every guard with ``every_tokens`` that has not exactly one answer to watch."""
    for stage in stages.values():
        if not isinstance(stage.params, Guard) or stage.params.every_tokens is None:
            continue
        key, after = f"{stage.key}.every_tokens", stage.options.after
        if stage.params.of != "answer":
            problems.append(
                f"{key}: it reads the {stage.params.of}, which is complete from the start; expected 'of: answer'"
            )
        if len(after) != 1 or (after[0] in stages and stages[after[0]].role != "answer"):
            problems.append(
                f"{stage.key}.after: expected the one decode whose answer it reads as it is written"
            )
            continue
        if after[0] not in stages:
            continue  # reported by parsing
        decode = stages[after[0]]
        for what, found in (
            ("pauses", decode.options.pause is not None),
            ("has branches", decode.options.branches > 1),
            ("is part of a loop", decode.options.repeat is not None),
        ):
            if found:
                problems.append(
                    f"{key}: the decode {decode.name!r} {what}; expected a guard of the whole answer"
                )
        if stage.options.repeat is not None or stage.options.during is not None:
            problems.append(f"{key}: it is repeated itself; expected a guard outside of loops and pauses")
