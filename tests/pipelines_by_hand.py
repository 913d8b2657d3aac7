"""Pipelines written in a test, compiled for one small LLM pool with a prefix cache, a host and a pool of tools."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import hermes_flow as hf
from hermes_flow.config.schema import Config, Pipeline

Stages = dict[str, dict[str, Any]]

PREFILL: dict[str, Any] = {"kind": "prefill"}
AGENT: Stages = {
    "think": {"kind": "prefill", "repeat": "turns", "extra_tokens": 30},
    "act": {"kind": "decode", "after": ["think"], "repeat": "turns"},
    "tool": {"kind": "tool", "after": ["act"], "repeat": "turns", "latency_ms": 50, "result_tokens": 21},
    "prefill": {"kind": "prefill", "after": ["tool"], "continues": "act"},
    "decode": {"kind": "decode", "after": ["prefill"]},
}


@functools.cache
def composed(*overrides: str) -> Config:
    """Return a config on cluster=agent whose steps cost 1 ms and 10 µs a token."""
    affine = ("cost=affine", "cost.fixed_us=1000", "cost.per_token_us=10", "cost.per_context_us=0.01")
    return hf.compose(["cluster=agent", "workload=synthetic", "slo=none", *affine, *overrides])


def config_of(
    stages: Stages,
    *overrides: str,
    loops: dict[str, Any] | None = None,
    routes: dict[str, Any] | None = None,
    pool: dict[str, Any] | None = None,
    **workload: Any,
) -> Config:
    """Return a config of the pipeline; ``pool`` changes cluster.pools.llm, ``workload`` the synthetic workload."""
    base: Any = composed(*overrides)
    pools = dict(base.cluster.pools)
    pools["llm"] = replace(pools["llm"], **(pool or {}))
    changed: Config = replace(
        base,
        pipeline=Pipeline("by_hand", stages, loops or {}, routes or {}),
        cluster=replace(base.cluster, pools=pools),
        workload=replace(base.workload, **workload),
    )
    return changed
