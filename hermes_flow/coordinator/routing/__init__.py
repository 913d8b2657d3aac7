"""How a task chooses among the clients of a pool: one module per policy, found by its registered name."""

from __future__ import annotations

import importlib
import pkgutil

from hermes_flow.coordinator.routing.policy import (
    Choose,
    PartingPolicy,
    Routable,
    RoutedPool,
    RoutingPolicy,
    needs_of,
    routing_policies,
    start,
)

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = [
    "Choose",
    "PartingPolicy",
    "Routable",
    "RoutedPool",
    "RoutingPolicy",
    "needs_of",
    "routing_policies",
    "start",
]
