"""The stage ``tool`` is a call that a request waits for, and whose result its later prompts contain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from hermes_flow.config.quantities import Milliseconds, Tokens
from hermes_flow.errors import ConfigError
from hermes_flow.program.units import NS_PER_MS, NS_PER_S, Ints
from hermes_flow.stages.kind import RequestSizes, stage_kinds
from hermes_flow.workload.lengths import parse_distribution, parse_lengths, tokens
from hermes_flow.workload.number_checks import MAX_SECONDS


@stage_kinds.register("tool")
@dataclass(frozen=True, slots=True)
class Tool:
    """Holds a core of its pool for ``latency_ms``; ``result_tokens`` join the prompts after it.

    Both are numbers, or distributions drawn per task.
    """

    client: ClassVar[Literal["llm", "sequential", "batched"]] = "sequential"
    latency_ms: dict[str, Any] | Milliseconds
    result_tokens: dict[str, Any] | Tokens = 0

    def __post_init__(self) -> None:
        parse_distribution(self.latency_ms, "latency_ms", whole=False)
        if self.result_tokens != 0:
            parse_lengths(self.result_tokens, "result_tokens")

    def tokens(self, sizes: RequestSizes) -> Ints:
        """Return the tokens of the answer that makes the call."""
        return sizes.answer_tokens

    def service_ns(self, sizes: RequestSizes) -> Ints:
        """Return how long each call takes, in nanoseconds."""
        drawn = parse_distribution(self.latency_ms, "latency_ms", whole=False)
        # A stream apart from the results', so that neither changes with the other's distribution.
        values = drawn.sample(len(sizes.input_tokens), sizes.rng.spawn(1)[0], whole=False)
        nanoseconds = np.maximum(values, 0.0) * NS_PER_MS
        if nanoseconds.max(initial=0.0) > MAX_SECONDS * float(NS_PER_S):
            raise ConfigError("latency_ms", f"gives {values.max():.3g} ms; expected milliseconds")
        rounded: Ints = np.rint(nanoseconds).astype(np.int64)
        return rounded

    def adds(self, sizes: RequestSizes) -> Ints:
        """Return the tokens that each call adds to the prompts after it."""
        count = len(sizes.input_tokens)
        if self.result_tokens == 0:
            return np.zeros(count, dtype=np.int64)
        drawn = parse_lengths(self.result_tokens, "result_tokens")
        return tokens(drawn, count, sizes.rng.spawn(1)[0], "result_tokens")
