"""Compiles decodes that pause: the segments of an answer and the stages between them.

A decode with ``pause`` stops every so many tokens, or at points that are drawn. The stages ``during`` it follow;
then a prompt of all that was said before and what they have found is prefilled, and the answer goes on from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hermes_flow.config.convert import convert
from hermes_flow.config.quantities import PositiveTokens
from hermes_flow.errors import ConfigError, did_you_mean
from hermes_flow.program.units import Ints
from hermes_flow.stages.graph import Stage
from hermes_flow.workload.lengths import parse_lengths, tokens

_NOT_DURING = ("prompt", "answer", "context")


@dataclass(frozen=True, slots=True)
class Pause:
    """The pauses of a decode: every ``every_tokens`` tokens, or ``times`` times (a number or a distribution)."""

    every_tokens: PositiveTokens | None = None
    times: dict[str, Any] | PositiveTokens | None = None


def parse_pause(given: Mapping[str, Any], key: str) -> Pause:
    """Return the pauses of a decode; ``key`` is the full key of its ``pause``. Raises ConfigError."""
    pause = convert(Pause, given, key)
    if (pause.every_tokens is None) == (pause.times is None):
        found = "neither" if pause.times is None else "both"
        raise ConfigError(key, f"{found} given; expected one of every_tokens and times")
    if pause.times is not None:
        parse_lengths(pause.times, f"{key}.times")
    return pause


def segment_ends(pause: Pause, answer: Ints, rng: np.random.Generator, key: str) -> Ints:
    """Return the tokens of the ``answer`` at the end of each segment, with a row per request.

    A pause comes after a token and before another: an answer of n tokens has at most n − 1. All columns from the one
    on that reaches the whole answer repeat it. Points of ``times`` are drawn uniformly; those that fall together
    are one pause. Raises ConfigError.
    """
    if pause.every_tokens is not None:
        most = -(-int(answer.max(initial=1)) // pause.every_tokens)
        ends: Ints = np.minimum(answer[:, None], pause.every_tokens * np.arange(1, most + 1))
        return ends
    assert pause.times is not None
    times = tokens(parse_lengths(pause.times, f"{key}.times"), len(answer), rng, f"{key}.times")
    most = int(min(times.max(initial=0), answer.max(initial=1) - 1))
    drawn = 1 + (rng.random((len(answer), most)) * (answer - 1)[:, None]).astype(np.int64)
    whole = answer[:, None]
    drawn = np.sort(np.where(np.arange(most) < times[:, None], drawn, whole), axis=1)
    if most > 1:
        drawn[:, 1:] = np.where(drawn[:, 1:] == drawn[:, :-1], whole, drawn[:, 1:])
    pauses: Ints = np.sort(np.hstack([np.minimum(drawn, whole), whole]), axis=1)
    return pauses


def check_pauses(stages: Mapping[str, Stage], problems: list[str]) -> None:
    """Append a problem for every impossible pause, and for stages that cannot run during one."""
    for stage in stages.values():
        if stage.options.pause is not None:
            _check_pause(stage, stages, problems)
        if stage.options.during is not None:
            _check_during(stage, stages, problems)
        problems.extend(
            f"{stage.key}.after: {name!r} comes during the decode {during!r}; expected to come after that"
            for name in stage.options.after
            if name in stages and (during := stages[name].options.during) not in (None, stage.options.during)
        )


def _check_pause(stage: Stage, stages: Mapping[str, Stage], problems: list[str]) -> None:
    key, options = f"{stage.key}.pause", stage.options
    if stage.role != "answer":
        problems.append(f"{key}: a {stage.kind} writes no answer; it is a key of a decode")
        return
    assert options.pause is not None
    try:
        parse_pause(options.pause, key)
    except ConfigError as error:
        problems.append(str(error))
    if options.branches > 1:
        problems.append(f"{key}: it has {options.branches} branches, which do not pause; expected one")
    if options.repeat is not None:
        problems.append(
            f"{key}: it is part of the loop {options.repeat!r}; expected a decode outside of loops"
        )
    if not any(other.options.during == stage.name for other in stages.values()):
        problems.append(f"{key}: no stage runs during its pauses; mark one with 'during: {stage.name}'")


def _check_during(stage: Stage, stages: Mapping[str, Stage], problems: list[str]) -> None:
    key, options = f"{stage.key}.during", stage.options
    decode = stages.get(options.during or "")
    if decode is None or decode.options.pause is None:
        pausing = [name for name, other in stages.items() if other.options.pause is not None]
        near = did_you_mean(str(options.during), pausing)
        problems.append(f"{key}: no decode that pauses is called {options.during!r}{near}")
        return
    if stage.role in _NOT_DURING:
        problems.append(f"{key}: a {stage.kind} cannot come in a pause")
    if options.repeat is not None:
        problems.append(f"{key}: it is part of the loop {options.repeat!r}; expected one or the other")
    problems.extend(
        f"{stage.key}.after: {name!r} is not in the pauses of {decode.name!r}; expected stages with 'during: "
        f"{decode.name}', or none"
        for name in options.after
        if name in stages and name != decode.name and stages[name].options.during != decode.name
    )
