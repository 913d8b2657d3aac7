"""How long a step takes: one module per cost model, found by its registered name."""

from __future__ import annotations

import importlib
import pkgutil

from hermes_flow.cost.model import CostModel, cost_models

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["CostModel", "cost_models"]
