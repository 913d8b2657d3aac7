"""The stage ``decode`` generates one token per step until the answer is complete."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from hermes_flow.config.quantities import Factor, PositiveTokens, VariationOrZero
from hermes_flow.errors import ConfigError
from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.program.same_bits import exp, log1p
from hermes_flow.program.units import Ints
from hermes_flow.stages.kind import BYTES_PER_TOKEN, Receiver, RequestSizes, Role, stage_kinds
from hermes_flow.workload.lengths import parse_lengths, tokens
from hermes_flow.workload.lengths.distribution import MAX_TOKENS
from hermes_flow.workload.number_checks import require_cv


@stage_kinds.register("decode")
@dataclass(frozen=True, slots=True)
class Decode:
    """Writes the request's output tokens, or ``output_tokens``: a number, or a distribution drawn per request.

    ``output_scale`` multiplies them (long reasoning, say); at least one remains. ``spread_cv`` is the coefficient of
    variation of the answers that one request could get (of its branches, say): lognormal around its tokens.
    """

    client: ClassVar[Literal["llm", "sequential", "batched"]] = "llm"
    role: ClassVar[Role] = "answer"
    output_scale: Factor = 1.0
    output_tokens: dict[str, Any] | PositiveTokens | None = None
    spread_cv: VariationOrZero = 0.0

    def __post_init__(self) -> None:
        if self.output_tokens is not None:
            parse_lengths(self.output_tokens, "output_tokens")
        if self.spread_cv:
            require_cv(self.spread_cv, "spread_cv")

    def sends(self, to: Receiver, tokens: Ints) -> Ints | None:
        """Return the bytes of the answer's text, for an encoder that embeds it as a query."""
        return tokens * BYTES_PER_TOKEN if to.role == "encode" else None

    def tokens(self, sizes: RequestSizes) -> Ints:
        """Return the answer's tokens, the first one (emitted by the prefill) included."""
        output = sizes.output_tokens
        if self.output_tokens is not None:
            drawn = parse_lengths(self.output_tokens, "output_tokens")
            output = tokens(drawn, len(output), sizes.rng, "output_tokens")
        factor: float | NDArray[np.float64] = self.output_scale
        if self.spread_cv:
            variance = log1p(self.spread_cv * self.spread_cv)
            drawn_log = -variance / 2 + np.sqrt(variance) * sizes.rng.standard_normal(len(output))
            factor = self.output_scale * exp(drawn_log)
        elif self.output_scale == 1.0:
            return output
        scaled = np.maximum(1.0, np.rint(output * factor))
        if not scaled.max(initial=1.0) <= MAX_TOKENS:
            most = f"{scaled.max():.3g} tokens"
            raise ConfigError("output_scale", f"gives {most}; expected at most {MAX_TOKENS:.0e}")
        whole: Ints = scaled.astype(np.int64)
        return whole
