"""The stage ``detokenize`` turns token ids into text on one core of a host."""

from __future__ import annotations

from typing import ClassVar, Literal

from hermes_flow.config.quantities import Microseconds
from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.program.units import Ints
from hermes_flow.stages.core_time import linear_ns
from hermes_flow.stages.kind import RequestSizes, stage_kinds


@stage_kinds.register("detokenize")
@dataclass(frozen=True, slots=True)
class Detokenize:
    """Core time fixed_us + per_token_us · output tokens, taken in one go when the answer is complete.

    Defaults: as for tokenize, decoding token by token as a streaming server does; MAPE 3 %.
    """

    client: ClassVar[Literal["llm", "sequential", "batched"]] = "sequential"
    fixed_us: Microseconds = 0.7
    """The time of one core for every request."""
    per_token_us: Microseconds = 0.64
    """The time of one core that each token adds."""

    def tokens(self, sizes: RequestSizes) -> Ints:
        """Return the answer's tokens."""
        return sizes.answer_tokens

    def service_ns(self, sizes: RequestSizes) -> Ints:
        """Return the core time per request, in nanoseconds."""
        return linear_ns(self.fixed_us, self.per_token_us, self.tokens(sizes))
