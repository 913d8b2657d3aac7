"""Distributions of prompt and answer lengths. Each module is one, found by its registered name."""

from __future__ import annotations

from hermes_flow.workload.lengths.distribution import (
    Distribution,
    durations_ns,
    length_distributions,
    parse_distribution,
    parse_lengths,
    tokens,
)

__all__ = [
    "Distribution",
    "durations_ns",
    "length_distributions",
    "parse_distribution",
    "parse_lengths",
    "tokens",
]
