"""How long prompts and answers are: one module per distribution, found by its registered name."""

from __future__ import annotations

import importlib
import pkgutil

from hermes_flow.workload.lengths.distribution import (
    durations_ns,
    length_distributions,
    parse_distribution,
    parse_lengths,
    require_tokens,
    tokens,
)

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = [
    "durations_ns",
    "length_distributions",
    "parse_distribution",
    "parse_lengths",
    "require_tokens",
    "tokens",
]
