"""The rule by which the ranks of data-parallel attention get their requests."""

from __future__ import annotations

from hermes_flow.errors import ConfigError
from hermes_flow.pools.kind import Handovers
from hermes_flow.pools.llm.schema import LLMPool

ROOMS = "follow_bootstrap_room"


def rank_routing(name: str, pool: LLMPool, handovers: Handovers) -> str:
    """Return the rule of the pool called ``name``; that of TensorRT-LLM's shared queue is fixed.

    source of SGLang's: _handle_load_balance_method of its server arguments (2026). Raises ConfigError where the pool
    asks for rooms, which only prompts of SGLang have whose KV leaves.
    """
    rooms = pool.engine.scheduler == "sglang" and handovers.sends
    if pool.rank_routing == ROOMS and not rooms:
        raise ConfigError(
            f"cluster.pools.{name}.rank_routing",
            f"{ROOMS}, but only prompts of SGLang whose KV another client awaits have rooms; expected null",
        )
    rules = {"sglang": ROOMS if rooms else "round_robin", "tensorrt_llm": "shared_queue"}
    return pool.rank_routing or rules.get(pool.engine.scheduler, "least_requests")
