"""The stage ``guard`` lets a small LLM check a prompt or an answer in one forward pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from hermes_flow.config.quantities import PositiveTokens, Share, Tokens
from hermes_flow.errors import ConfigError
from hermes_flow.program.units import Ints
from hermes_flow.stages.kind import RequestSizes, Role, stage_kinds


@stage_kinds.register("guard")
@dataclass(frozen=True, slots=True)
class Guard:
    """One pass over the prompt, or the answer (``of``), with ``template_tokens`` of the guard's own around it.

    ``max_tokens`` is where what it reads is cut off (null: nowhere). It delays requests and stops none: how many go
    on is a route's business.

    With ``every_tokens`` it reads an answer while it is written: each pass has so many new tokens and up to
    ``context_tokens`` from before them, and begins when they are there. Of these ``stop_share`` are stopped at one of
    their passes; the answer has then ``lag_tokens`` more, which were written meanwhile.
    """

    client: ClassVar[Literal["llm", "sequential", "batched"]] = "llm"
    role: ClassVar[Role] = "guard"
    of: Literal["input", "answer"] = "input"
    template_tokens: Tokens = 0
    max_tokens: PositiveTokens | None = None
    every_tokens: PositiveTokens | None = None
    context_tokens: Tokens = 0
    stop_share: Share = 0.0
    lag_tokens: Tokens = 0

    def __post_init__(self) -> None:
        if self.every_tokens is not None and self.every_tokens < 2:
            raise ConfigError("every_tokens", f"{self.every_tokens} is below 2")
        for name in ("context_tokens", "stop_share", "lag_tokens"):
            if getattr(self, name) and self.every_tokens is None:
                raise ConfigError(
                    name, "it needs every_tokens: only a guard that reads during generation has it"
                )

    def tokens(self, sizes: RequestSizes) -> Ints:
        """Return the tokens of the pass."""
        return self._cut(sizes.input_tokens if self.of == "input" else sizes.answer_tokens)

    def chunk_tokens(self, answer: Ints, check: int) -> Ints:
        """Return the tokens of a pass over a chunk of an answer of so many tokens; checks count from 0."""
        assert self.every_tokens is not None
        before = check * self.every_tokens
        return self._cut(np.clip(answer - before, 0, self.every_tokens) + min(before, self.context_tokens))

    def _cut(self, read: Ints) -> Ints:
        if self.max_tokens is not None:
            read = np.minimum(read, self.max_tokens)
        return read + self.template_tokens
