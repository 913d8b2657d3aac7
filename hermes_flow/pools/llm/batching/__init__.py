"""Batching policies: they choose the sequences of the next LLM step. Each module is one policy."""

from __future__ import annotations

from hermes_flow.pools.llm.batching.policy import (
    batching_policies,
    exceeds_budget,
    plans_gangs,
    policy_name,
    policy_of_client,
)

__all__ = ["batching_policies", "exceeds_budget", "plans_gangs", "policy_name", "policy_of_client"]
