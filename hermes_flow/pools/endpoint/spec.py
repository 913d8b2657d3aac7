"""The specification of one account at a provider."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hermes_flow.workload.lengths import Distribution


@dataclass(frozen=True, slots=True)
class EndpointClientSpec:
    """Limits per minute (None: no limit), the treatment of calls above them, and latencies in milliseconds.

    Prices are in USD per million tokens, None where they are not known.
    """

    kind: ClassVar[str] = "endpoint"
    devices: ClassVar[int] = 0
    kv_blocks: ClassVar[None] = None
    model: str
    requests_per_minute: int | None
    tokens_per_minute: int | None
    rejects: bool
    ttft_ms: Distribution
    tpot_ms: Distribution
    usd_per_million_input_tokens: float | None
    usd_per_million_output_tokens: float | None
