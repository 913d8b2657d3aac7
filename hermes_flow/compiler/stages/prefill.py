"""Prefill: the prompt's forward pass, which emits the first token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from hermes_flow.compiler.program import Ints
from hermes_flow.compiler.stages.kind import RequestSizes, stage_kinds
from hermes_flow.errors import ConfigError


@stage_kinds.register("prefill")
@dataclass(frozen=True, slots=True)
class Prefill:
    """``extra_tokens`` are added to each request's prompt (a system prompt, say)."""

    client: ClassVar[Literal["llm", "sequential"]] = "llm"
    extra_tokens: int = 0

    def __post_init__(self) -> None:
        if self.extra_tokens < 0:
            raise ConfigError("extra_tokens", f"{self.extra_tokens} is negative")

    def tokens(self, sizes: RequestSizes) -> Ints:
        """Return the prompt's tokens."""
        return sizes.input_tokens + self.extra_tokens
