"""The keys of an attainment: limits that a share of the requests keeps, all of them at once."""

from __future__ import annotations

from hermes_flow.config.quantities import PositiveMilliseconds, PositiveShare
from hermes_flow.program.quick_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Within:
    """Limits in milliseconds that a ``share`` of all requests has to keep, all of them at once."""

    share: PositiveShare
    """The share of all requests, from 0 to 1, that keeps every limit."""
    ttft_ms: PositiveMilliseconds | None = None
    """The limit on the time to the first token; null for none."""
    tpot_ms: PositiveMilliseconds | None = None
    """The limit on the time per output token; null for none."""
    e2e_ms: PositiveMilliseconds | None = None
    """The limit on the time from arrival to finish; null for none."""
