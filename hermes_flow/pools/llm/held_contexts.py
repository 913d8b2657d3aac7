"""Checks of pools whose prompts get their blocks before their contexts are read (``retrieved_kv: held``)."""

from __future__ import annotations

from collections.abc import Iterator

from hermes_flow.pools.llm.batching import plans_gangs, policy_name
from hermes_flow.pools.llm.schema import LLMPool
from hermes_flow.pools.llm.used_features import used_features

KEY = "retrieved_kv"


def holds_contexts(pool: LLMPool) -> bool:
    """Return whether prompts of the pool get their blocks before their contexts are read."""
    return pool.retrieved_kv == "held"


def held_notes(pool: LLMPool) -> list[str]:
    """Return when prompts get their blocks, as a note in the compiled program; nothing for the default."""
    if not holds_contexts(pool):
        return []
    return ["a prompt gets its blocks before its context is read (retrieved_kv: held)"]


def check_held_contexts(pool: LLMPool, key: str, problems: list[str]) -> None:
    """Append a problem for every setting that is not modelled with ``retrieved_kv: held``."""
    if holds_contexts(pool):
        problems.extend(f"{key}.{KEY}: held {why}" for why in _obstacles(pool))


def _obstacles(pool: LLMPool) -> Iterator[str]:
    if pool.engine.scheduler != "vllm":
        yield f"follows vLLM's scheduler, and the engine is {pool.engine.name}; expected at_admission"
        return
    if plans_gangs(pool.batching):
        yield f"is not modelled with batching={policy_name(pool.batching)}; expected another policy"
    if pool.preemption != "recompute":
        yield f"is not modelled with preemption={pool.preemption}; expected recompute"
    if pool.scheduling_policy == "priority":
        yield "is not modelled with scheduling_policy=priority; expected fcfs"
    yield from used_features(pool)
    if pool.site is not None:
        yield "is not modelled with cluster.sites; expected at_admission, or no sites"
    for name in ("autoscale", "failures"):
        if getattr(pool, name) is not None:
            yield f"is not modelled with {name}; expected {name}: null"
