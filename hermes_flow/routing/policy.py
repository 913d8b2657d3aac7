"""The registry of routing policies."""

from __future__ import annotations

from hermes_flow.config.registry import Registry
from hermes_flow.program.routing import Choose, Need, RoutedPool, RoutingPolicy

routing_policies: Registry[RoutingPolicy] = Registry(
    "routing policy", tag="policy", package=__package__, methods=("start", "oracle")
)


def needs_of(policy: RoutingPolicy) -> frozenset[Need]:
    """Return what a policy cannot do without ("prompts": a pool of LLM clients): its ``needs``, if it has any."""
    needs: frozenset[Need] = getattr(policy, "needs", frozenset())
    return needs


def start(policy: RoutingPolicy, pool: RoutedPool) -> Choose:
    """Return the policy's choice among the clients of a pool; there is none to make where there is one client."""
    if len(pool.clients) == 1:
        return lambda task, now_ns: 0
    return policy.start(pool)
