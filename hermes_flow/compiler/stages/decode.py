"""Decode: one token a step until the answer is complete."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from hermes_flow.compiler.program import Ints
from hermes_flow.compiler.stages.kind import RequestSizes, stage_kinds
from hermes_flow.errors import ConfigError


@stage_kinds.register("decode")
@dataclass(frozen=True, slots=True)
class Decode:
    """``output_scale`` multiplies each request's output tokens (long reasoning, say); at least one remains."""

    client: ClassVar[Literal["llm", "sequential"]] = "llm"
    output_scale: float = 1.0

    def __post_init__(self) -> None:
        if not self.output_scale > 0:
            raise ConfigError("output_scale", f"{self.output_scale} is not above 0")

    def tokens(self, sizes: RequestSizes) -> Ints:
        """Return the answer's tokens, the first one (emitted by the prefill) included."""
        if self.output_scale == 1.0:
            return sizes.output_tokens
        scaled: Ints = np.rint(sizes.output_tokens * self.output_scale).astype(np.int64)
        return np.maximum(1, scaled)
