"""Which sequences go into the next LLM step: one module per policy, found by its registered name."""

from __future__ import annotations

import importlib
import pkgutil

from hermes_flow.batching.policy import batching_policies

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["batching_policies"]
