"""The stage ``prefill`` computes the prompt in a forward pass and emits the first token."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np

from hermes_flow.config.quantities import Tokens
from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.program.units import Ints
from hermes_flow.stages.kind import RequestSizes, Role, stage_kinds
from hermes_flow.workload.lengths import parse_lengths, tokens


@stage_kinds.register("prefill")
@dataclass(frozen=True, slots=True)
class Prefill:
    """``extra_tokens`` are added to each request's prompt (a system prompt, say).

    ``turn_tokens`` (a number, or a distribution drawn per request) are what a prompt that goes on from an earlier
    answer adds to it, beside the results of tools: an instruction, what the user says next.
    """

    client: ClassVar[Literal["llm", "sequential", "batched"]] = "llm"
    role: ClassVar[Role] = "prompt"
    extra_tokens: Tokens = 0
    turn_tokens: dict[str, Any] | Tokens = 0

    def __post_init__(self) -> None:
        if self.turn_tokens != 0:
            parse_lengths(self.turn_tokens, "turn_tokens")

    def tokens(self, sizes: RequestSizes) -> Ints:
        """Return the prompt's tokens."""
        return sizes.input_tokens + self.extra_tokens

    def new_tokens(self, sizes: RequestSizes) -> Ints:
        """Return what a prompt that goes on from an earlier answer adds to it."""
        count = len(sizes.input_tokens)
        if self.turn_tokens == 0:
            return np.zeros(count, dtype=np.int64)
        return tokens(parse_lengths(self.turn_tokens, "turn_tokens"), count, sizes.rng, "turn_tokens")
