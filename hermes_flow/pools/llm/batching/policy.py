"""The registry of batching policies."""

from __future__ import annotations

from hermes_flow.config.registry import Registry
from hermes_flow.pools.llm.scheduler import BatchingPolicy

batching_policies: Registry[BatchingPolicy] = Registry("batching policy", tag="batching", package=__package__)
