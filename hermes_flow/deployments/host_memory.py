"""The flags of SGLang's hierarchical cache become the memory of the host behind the KV of a pool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hermes_flow.deployments.settings import Keys, Value
from hermes_flow.errors import ConfigError

# source: SGLang 0.5, hicache_write_policy of its server arguments, write_through by default
WRITE_POLICIES = {"write_back": "evicted", "write_through": "computed", "write_through_selective": "reused"}
_RATIO = 2.0  # source: SGLang 0.5, hicache_ratio of its server arguments


def write_policy(flag: str, value: Value) -> Keys:
    """Read when pages are written to the host; raises ConfigError for another policy than SGLang's three."""
    if value not in WRITE_POLICIES:
        raise ConfigError(f"task.path: {flag}", f"{value!r}; expected {', '.join(WRITE_POLICIES)}")
    return {"host.write": WRITE_POLICIES[str(value)]}


def gather_host_memory(keys: dict[str, Any], ignored: dict[str, str], model: Sequence[str]) -> str | None:
    """Put what ``keys`` say of the host's memory into ``offload``; return a note where its size is not known.

    ``model`` are the overrides that choose the model. What is said of a cache that is off goes to ``ignored``.
    """
    own = {key.partition(".")[2]: keys.pop(key) for key in list(keys) if key.startswith("host.")}
    if not own.get("on"):
        flags = {"gb": "--hicache-size", "ratio": "--hicache-ratio", "write": "--hicache-write-policy"}
        ignored |= {flags[key]: "the hierarchical cache is off" for key in own if key in flags}
        return None
    keys["offload.tiers"] = "[host]"
    keys["offload.write"] = own.get("write", "computed")
    if own.get("gb"):
        keys["offload.host.capacity_gb"] = own["gb"] * _devices(keys)
        return None
    ratio = own.get("ratio", _RATIO)
    size = _kv_gb(keys, model)
    if size is None:
        return (
            f"host memory is {ratio:g} times the memory for KV on the devices (--hicache-ratio), which is not known "
            "without --max-total-tokens and a model of the catalog: set cluster.pools.llm.offload.host.capacity_gb"
        )
    keys["offload.host.capacity_gb"] = float(f"{ratio * size:.6g}")
    return None


def _devices(keys: Mapping[str, Any]) -> int:
    """Return the devices of one client, of which each has host memory of its own."""
    sizes = ("tensor_parallel", "pipeline_parallel", "data_parallel")
    tensor, pipeline, data = (int(keys.get(name, 1)) for name in sizes)
    return tensor * pipeline * data


def _kv_gb(keys: Mapping[str, Any], model: Sequence[str]) -> float | None:
    """Return the GB of the tokens that ``--max-total-tokens`` gives a client; None where they are not known."""
    tokens = keys.get("kv_tokens")
    if tokens is None or not model:
        return None
    from hermes_flow.config.compose import compose
    from hermes_flow.pools.llm.capacity import kv_capacity
    from hermes_flow.pools.llm.schema import LLMPool
    from hermes_flow.program.units import bytes_to_gb

    names = (
        "tensor_parallel",
        "pipeline_parallel",
        "data_parallel",
        "block_size",
        "model.precision.kv_cache",
    )
    sizes = [
        f"{key if key.startswith('model.') else f'cluster.pools.llm.{key}'}={keys[key]}"
        for key in names
        if key in keys
    ]
    pool = compose(["engine=sglang", *model, *sizes]).cluster.pools["llm"]
    assert isinstance(pool, LLMPool)
    block = kv_capacity(pool).block_bytes * pool.devices
    return bytes_to_gb(block * (tokens // pool.block_size))
