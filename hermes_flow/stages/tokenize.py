"""The stage ``tokenize`` turns text into token ids on one core of a host."""

from __future__ import annotations

from typing import ClassVar, Literal

from hermes_flow.config.quantities import Microseconds
from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.program.units import Ints
from hermes_flow.stages.core_time import linear_ns
from hermes_flow.stages.kind import RequestSizes, stage_kinds


@stage_kinds.register("tokenize")
@dataclass(frozen=True, slots=True)
class Tokenize:
    """Core time fixed_us + per_token_us · prompt tokens.

    Defaults: Hugging Face tokenizers 0.23.3, byte-level BPE of 32k entries, English text of 10 to 8,000
    tokens, one core of an AMD EPYC (Zen 4, 2.6 GHz); MAPE 11 %. The library alone: no HTTP, no chat template.
    """

    client: ClassVar[Literal["llm", "sequential", "batched"]] = "sequential"
    fixed_us: Microseconds = 9.0
    """The time of one core for every request."""
    per_token_us: Microseconds = 1.55
    """The time of one core that each token adds."""

    def tokens(self, sizes: RequestSizes) -> Ints:
        """Return the prompt's tokens."""
        return sizes.input_tokens

    def service_ns(self, sizes: RequestSizes) -> Ints:
        """Return the core time per request, in nanoseconds."""
        return linear_ns(self.fixed_us, self.per_token_us, self.tokens(sizes))
