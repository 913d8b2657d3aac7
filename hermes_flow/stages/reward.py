"""The stage ``reward`` lets a model score an answer or a reasoning step in one forward pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from hermes_flow.config.quantities import Tokens
from hermes_flow.program.units import Ints
from hermes_flow.stages.kind import RequestSizes, Role, stage_kinds


@stage_kinds.register("reward")
@dataclass(frozen=True, slots=True)
class Reward:
    """One pass over prompt and answer of the decode before it, with ``template_tokens`` after them.

    Every branch of the decode is scored on its own.
    """

    client: ClassVar[Literal["llm", "sequential", "batched"]] = "llm"
    role: ClassVar[Role] = "score"
    template_tokens: Tokens = 0

    def tokens(self, sizes: RequestSizes) -> Ints:
        """Return the tokens of the pass."""
        prompt = sizes.input_tokens if sizes.prompt_tokens is None else sizes.prompt_tokens
        return prompt + sizes.answer_tokens + self.template_tokens
