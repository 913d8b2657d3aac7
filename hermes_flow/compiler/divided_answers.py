"""Divides answers that pause, that a guard checks while they are written, or that a guard stops."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hermes_flow.compiler.pauses import parse_pause, segment_ends
from hermes_flow.compiler.streaming import check_count, cut_answer, stopped_at
from hermes_flow.errors import ConfigError
from hermes_flow.program.requests import Requests
from hermes_flow.program.units import Ints
from hermes_flow.stages import RequestSizes
from hermes_flow.stages.graph import Graph, Stage
from hermes_flow.stages.guard import Guard

Mask = NDArray[np.bool_]


class AnswerCuts:
    """The drawn divisions of answers; ``stream(purpose, name)`` gives the generators.

    ``takers`` tells who takes a guard, None for all. Raises ConfigError where a stage's own keys do not hold.
    """

    def __init__(
        self,
        graph: Graph,
        requests: Requests,
        stream: Callable[[str, str], np.random.Generator],
        takers: Callable[[Stage], Mask | None],
    ) -> None:
        self._graph = graph
        self._requests = requests
        self._stream = stream
        self._ends: dict[str, Ints] = {}  # of decodes that pause: tokens written by the end of each segment
        self._stops: dict[str, Ints] = {}  # of guards that read as it is written: at which check they stop it
        self._cut: dict[str, Ints] = {}  # of the decodes that these read: what is written
        for stage in graph.stages.values():
            if graph.pausing(stage) is stage:
                self._ends[stage.name] = self._segments(stage)
            decode = graph.watched(stage)
            if decode is not None:
                self._watch(stage, decode, takers(stage))

    def most(self, limit: int) -> dict[str, int]:
        """Return the largest number of segments of each decode that pauses, and of checks of each guard.

        Raises ConfigError where that is above ``limit``.
        """
        found = {}
        for name, ends in self._ends.items():
            found[name] = segments = ends.shape[1]
            if segments > limit:
                problem = f"gives {segments:,} segments; expected at most {limit}"
                raise ConfigError(f"{self._graph.stages[name].key}.pause", problem)
        for name in self._stops:
            guard = self._graph.stages[name]
            found[name] = checks = int(self._checks(guard).max(initial=1))
            if checks > limit:
                problem = f"gives {checks:,} checks of an answer; expected at most {limit}"
                raise ConfigError(f"{guard.key}.every_tokens", problem)
        return found

    def segment(self, decode: str, turn: int) -> tuple[Ints, Ints | None] | None:
        """Return the tokens of a decode's segment and of the segments before it (None: it is the first).

        None for a decode of which nothing is cut.
        """
        if decode in self._cut:
            return self._cut[decode], None
        ends = self._ends.get(decode)
        if ends is None:
            return None
        return (ends[:, turn] - ends[:, turn - 1], ends[:, turn - 1]) if turn else (ends[:, 0], None)

    def goes_on(self, decode: str, turn: int) -> Mask:
        """Return which answers of a decode that pauses have a segment ``turn``, counted from 1."""
        longer: Mask = self._ends[decode][:, turn] > self._ends[decode][:, turn - 1]
        return longer

    def check(self, guard: Stage, turn: int) -> tuple[Mask, Ints, Ints] | None:
        """Return which answers have the guard's check ``turn``, the tokens it reads, and the token it begins at.

        None for a stage that reads nothing while it is written.
        """
        if guard.name not in self._stops:
            return None
        assert isinstance(guard.params, Guard)
        assert guard.params.every_tokens is not None
        answer = self._cut[guard.options.after[0]]
        at_token = np.minimum(answer, (turn + 1) * guard.params.every_tokens)
        return self._checks(guard) > turn, guard.params.chunk_tokens(answer, turn), at_token

    def _answer(self, decode: Stage) -> Ints:
        """Return the tokens of a decode's answers as nothing cuts them; 1 where a request is of another part."""
        requests, graph, rng = self._requests, self._graph, self._stream("stage", decode.name)
        sizes = RequestSizes(requests.input_tokens, requests.output_tokens, requests.output_tokens, rng)
        try:
            answer = decode.params.tokens(sizes)
        except ConfigError as error:
            raise ConfigError(f"{decode.key}.{error.key}", error.problem) from None
        if graph.parts and requests.pipeline is not None:
            answer = np.where(requests.pipeline == graph.parts.index(graph.part_of(decode.name)), answer, 1)
        return answer

    def _segments(self, decode: Stage) -> Ints:
        key = f"{decode.key}.pause"
        assert decode.options.pause is not None
        pause = parse_pause(decode.options.pause, key)
        return segment_ends(pause, self._answer(decode), self._stream("pause", decode.name), key)

    def _watch(self, guard: Stage, decode: Stage, taken: Mask | None) -> None:
        """Draw where a guard stops an answer, and cut that."""
        assert isinstance(guard.params, Guard)
        whole = self._answer(decode)
        stopped = stopped_at(guard.params, whole, taken, self._stream("stop", guard.name))
        cut = cut_answer(guard.params, whole, stopped)
        self._stops[guard.name] = stopped
        self._cut[decode.name] = np.minimum(self._cut.get(decode.name, cut), cut)

    def _checks(self, guard: Stage) -> Ints:
        """Return how often a guard looks at each answer while it is written."""
        assert isinstance(guard.params, Guard)
        return check_count(guard.params, self._cut[guard.options.after[0]], self._stops[guard.name])
