"""The registry of scaling policies."""

from __future__ import annotations

from hermes_flow.config.registry import Registry
from hermes_flow.program.fleet import ScalingPolicy

scaling_policies: Registry[ScalingPolicy] = Registry(
    "scaling policy", tag="policy", package=__package__, methods=("start", "oracle")
)


def needs_of(policy: ScalingPolicy) -> frozenset[str]:
    """Return the ``needs`` of a policy; empty if it has none."""
    needs: frozenset[str] = getattr(policy, "needs", frozenset())
    return needs
