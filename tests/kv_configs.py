"""Configs that retrieve KV: one small LLM whose steps cost 1 ms and 10 µs a token, and a store of two tiers.

A token of the model's KV is 131,072 bytes (llama3_8b: 32 layers, 8 KV heads of 128, keys and values, bf16).
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import hermes_flow as hf
from hermes_flow.config.schema import Config, Pipeline
from hermes_flow.pools.memory.schema import MemoryTier

TOKEN_BYTES = 131_072
FAST = MemoryTier(capacity_gb=100, bandwidth_gb_s=100, lookup_us=10)
SLOW = MemoryTier(capacity_gb=1000, bandwidth_gb_s=10, lookup_us=200)
CHAT: dict[str, dict[str, Any]] = {
    "prefill": {"kind": "prefill", "after": ["recall"]},
    "decode": {"kind": "decode", "after": ["prefill"]},
}


@functools.cache
def composed(*overrides: str) -> Config:
    """Return the config of cluster=kv_tiers with steps that are easily reckoned with."""
    affine = ("cost=affine", "cost.fixed_us=1000", "cost.per_token_us=10", "cost.per_context_us=0")
    common = ("cluster=kv_tiers", "model=llama3_8b", "hardware=h100_sxm", "slo=none")
    config: Any = hf.compose([*common, *affine, *overrides])
    pools = dict(config.cluster.pools)
    if "store" in pools:
        pools["store"] = replace(pools["store"], beside=None, count=1)
    for name in {"store", "llm"} & set(pools):  # contexts pass the network in no time
        hardware = replace(pools[name].hardware, network_gb_s=None)
        pools[name] = replace(pools[name], hardware=hardware)
    return replace(config, cluster=replace(config.cluster, pools=pools))


def config_of(
    recall: dict[str, Any],
    *overrides: str,
    tiers: dict[str, MemoryTier] | None = None,
    llm: dict[str, Any] | None = None,
    store: dict[str, Any] | None = None,
    stages: dict[str, dict[str, Any]] | None = None,
    **workload: Any,
) -> Config:
    """Return a config whose requests ``recall`` before their prefill; the others change pools and workload."""
    base: Any = composed(*overrides)
    pools = dict(base.cluster.pools)
    # No prefix cache unless a test asks for one: what is found again is what the store has.
    pools["llm"] = replace(pools["llm"], **({"prefix_cache": False} | (llm or {})))
    given = {"fast": FAST, "slow": SLOW} if tiers is None else tiers
    pools["store"] = replace(pools["store"], tiers=given, **(store or {}))
    every = {"recall": {"kind": "kv_retrieval", **recall}, **(CHAT if stages is None else stages)}
    changed: Config = replace(
        base,
        pipeline=Pipeline("by_hand", every),
        cluster=replace(base.cluster, pools=pools),
        workload=replace(base.workload, **workload),
    )
    return changed


def run(recall: dict[str, Any], *overrides: str, **changes: Any) -> hf.Result:
    """Compile and simulate such a config."""
    return hf.simulate(hf.compile(config_of(recall, *overrides, **changes)))
