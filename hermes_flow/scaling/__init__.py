"""Scaling policies: they decide how many clients a pool should have. Each module is one policy."""

from __future__ import annotations

from hermes_flow.scaling.policy import needs_of, scaling_policies

__all__ = ["needs_of", "scaling_policies"]
