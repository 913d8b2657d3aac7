"""Specs of one small LLM client, for tests that work a schedule out on paper."""

from __future__ import annotations

from typing import Any

from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.step_cost import StepCost


def small_client(cost: StepCost, **changes: Any) -> LLMClientSpec:
    """Return a client of one device that batches by chunks, without look-ahead.

    It has 1,000 blocks of 4 tokens, and 20 seats and 100 tokens a step; ``changes`` are fields of the spec.
    """
    fields: dict[str, Any] = {
        "model": "small",
        "devices": 1,
        "kv_blocks": 1000,
        "block_size": 4,
        "max_num_seqs": 20,
        "max_num_batched_tokens": 100,
        "batching": "chunked",
        "lookahead": 0,
    }
    return LLMClientSpec(cost=cost, **{**fields, **changes})
