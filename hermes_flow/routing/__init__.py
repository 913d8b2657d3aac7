"""Routing policies: they choose a client of a pool for each task. Each module is one policy."""

from __future__ import annotations

from hermes_flow.program.routing import Choose, PartingPolicy, Routable, RoutedPool, RoutingPolicy
from hermes_flow.routing.policy import needs_of, routing_policies, start

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
