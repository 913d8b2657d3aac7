"""Guard: a small LLM reads a prompt or an answer and says in one forward pass whether it may pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from hermes_flow.compiler.program import Ints
from hermes_flow.compiler.stages.kind import RequestSizes, stage_kinds
from hermes_flow.errors import ConfigError
from hermes_flow.workload.lengths import require_tokens


@stage_kinds.register("guard")
@dataclass(frozen=True, slots=True)
class Guard:
    """One pass over the prompt, or the answer (``of``), with ``template_tokens`` of the guard's own around it.

    ``max_tokens`` is where what it reads is cut off (null: nowhere). It delays requests and stops none: how many go
    on is a route's business.
    """

    client: ClassVar[Literal["llm", "sequential", "batched"]] = "llm"
    of: Literal["input", "answer"] = "input"
    template_tokens: int = 0
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        require_tokens(self.template_tokens, "template_tokens")
        if self.max_tokens is not None:
            require_tokens(self.max_tokens, "max_tokens")
            if self.max_tokens < 1:
                raise ConfigError("max_tokens", f"{self.max_tokens} is below 1")

    def tokens(self, sizes: RequestSizes) -> Ints:
        """Return the tokens of the pass."""
        read = sizes.input_tokens if self.of == "input" else sizes.answer_tokens
        if self.max_tokens is not None:
            read = np.minimum(read, self.max_tokens)
        return read + self.template_tokens
