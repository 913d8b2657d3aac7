"""How a task chooses among the clients of a pool: one module per policy, found by its registered name."""

from __future__ import annotations

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
