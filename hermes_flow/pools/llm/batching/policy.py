"""The registry of batching policies, and the properties of a pool's policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass, replace
from typing import Any

from hermes_flow.config.registry import Registry
from hermes_flow.errors import ConfigError
from hermes_flow.pools.llm.scheduler import BatchingPolicy

batching_policies: Registry[BatchingPolicy] = Registry(
    "batching policy", tag="policy", package=__package__, methods=("plan",)
)


def policy_name(batching: Mapping[str, Any] | str) -> str:
    """Return the name of the policy in the value of the key ``batching``; it may not be registered."""
    return batching if isinstance(batching, str) else str(batching.get(batching_policies.tag, ""))


def plans_gangs(batching: Mapping[str, Any] | str) -> bool:
    """Return whether the policy that ``batching`` names plans gangs; False where there is no such policy."""
    return _mark(batching, "gang")


def exceeds_budget(batching: Mapping[str, Any] | str) -> bool:
    """Return whether steps of that policy may exceed the token budget; False where there is no such policy."""
    return _mark(batching, "whole_prompts")


def policy_of_client(policy: BatchingPolicy) -> BatchingPolicy:
    """Return an object of the same policy and settings for one client, which may keep its state in it.

    A policy from outside the package is checked as it plans.
    """
    own: BatchingPolicy = replace(policy) if is_dataclass(policy) else type(policy)()
    if type(policy).__module__.startswith("hermes_flow."):
        return own
    from hermes_flow.pools.llm.batching.obligations import CheckedPolicy

    return CheckedPolicy(own, f"the {batching_policies.noun} {batching_policies.name_of(policy)!r}")


def _mark(batching: Mapping[str, Any] | str, name: str) -> bool:
    try:
        policy = batching_policies.find(policy_name(batching), "batching")
    except ConfigError:
        return False
    return bool(getattr(policy, name, False))
