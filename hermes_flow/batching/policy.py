"""The registry of batching policies."""

from __future__ import annotations

from hermes_flow.clients.planning import BatchingPolicy
from hermes_flow.config.registry import Registry

batching_policies: Registry[BatchingPolicy] = Registry("batching policy", tag="batching", package=__package__)
