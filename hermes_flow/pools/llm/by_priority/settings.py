"""Checks of the settings of a pool that schedules by priority, and its note."""

from __future__ import annotations

from collections.abc import Iterator

from hermes_flow.pools.llm.batching import policy_name
from hermes_flow.pools.llm.schema import LLMPool
from hermes_flow.pools.llm.used_features import used_features


def by_priority(pool: LLMPool) -> bool:
    """Return whether the pool's clients run vLLM's scheduler by priority."""
    return pool.scheduling_policy == "priority"


def check_priority(pool: LLMPool, key: str, problems: list[str]) -> None:
    """Append a problem for every setting that is not modelled with ``scheduling_policy: priority``."""
    if by_priority(pool):
        problems.extend(f"{key}.scheduling_policy: priority {why}" for why in _obstacles(pool))


def _obstacles(pool: LLMPool) -> Iterator[str]:
    if pool.engine.scheduler != "vllm":
        yield f"is a policy of vLLM's scheduler, not of {pool.engine.name}'s; expected fcfs, or engine=vllm"
        return
    if pool.packing != "fcfs":
        yield f"orders the queue itself, and packing is {policy_name(pool.packing)}; expected packing=fcfs"
    if policy_name(pool.batching) != "chunked":
        yield f"is not modelled with batching={policy_name(pool.batching)}; expected chunked"
    if pool.preemption != "recompute":
        yield f"is not modelled with preemption={pool.preemption}; expected recompute"
    yield from used_features(pool)
    if pool.tool_gap.policy != "cache":
        yield f"is not modelled with tool_gap.policy={pool.tool_gap.policy}; expected cache"
