"""Cost models: how long a step takes. Each module is one model, found by its registered name."""

from __future__ import annotations

from hermes_flow.cost.model import CostModel, cost_models

__all__ = ["CostModel", "cost_models"]
