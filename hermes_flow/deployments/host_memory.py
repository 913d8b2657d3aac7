"""The flags of SGLang's hierarchical cache become the memory of the host behind the KV of a pool."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from hermes_flow.deployments.settings import Keys, Value, number
from hermes_flow.errors import ConfigError
from hermes_flow.pools.llm.offload.schema import Offload

# source: SGLang 0.5, hicache_write_policy of its server arguments, write_through by default
WRITE_POLICIES = {"write_back": "evicted", "write_through": "computed", "write_through_selective": "reused"}
_PREFETCH_POLICIES = ("best_effort", "wait_complete", "timeout")
_FLAGS = {
    "gb": "--hicache-size",
    "ratio": "--hicache-ratio",
    "write": "--hicache-write-policy",
    "storage": "--hicache-storage-backend",
    "policy": "--hicache-storage-prefetch-policy",
    "least": "--hicache-storage-backend-extra-config",
}
_RATIO = 2.0  # source: SGLang 0.5, hicache_ratio of its server arguments


def write_policy(flag: str, value: Value) -> Keys:
    """Read when pages are written to the host; raises ConfigError for another policy than SGLang's three."""
    if value not in WRITE_POLICIES:
        raise ConfigError(f"task.path: {flag}", f"{value!r}; expected {', '.join(WRITE_POLICIES)}")
    return {"host.write": WRITE_POLICIES[str(value)]}


def prefetch_policy(flag: str, value: Value) -> Keys:
    """Read what requests do while pages come from storage; raises ConfigError for another policy than SGLang's."""
    if value not in _PREFETCH_POLICIES:
        raise ConfigError(f"task.path: {flag}", f"{value!r}; expected {', '.join(_PREFETCH_POLICIES)}")
    return {"host.policy": str(value)}


def storage(flag: str, value: Value) -> Keys:
    """Read that there is storage behind the host, whatever its backend."""
    return {"host.storage": value}


def storage_settings(flag: str, value: Value) -> Keys:
    """Read the threshold of prefetches from the JSON settings of a backend."""
    try:
        settings = json.loads(str(value))
    except ValueError:
        raise ConfigError(
            f"task.path: {flag}", f"{value!r} is not JSON; files of settings are not read"
        ) from None
    tokens = settings.get("prefetch_threshold") if isinstance(settings, dict) else None
    return {"host.others": True} if tokens is None else {"host.least": number(flag, str(tokens))}


def storage_flags(offload: Offload) -> dict[str, Any]:
    """Return the flags of the storage behind the host, files on its drive, as SGLang has them."""
    flags: dict[str, Any] = {"--hicache-storage-backend": "file"}
    if offload.prefetch_policy is not None:
        flags[_FLAGS["policy"]] = offload.prefetch_policy
    if offload.prefetch_tokens is not None:
        flags[_FLAGS["least"]] = json.dumps({"prefetch_threshold": offload.prefetch_tokens})
    return flags


def gather_host_memory(keys: dict[str, Any], ignored: dict[str, str], model: Sequence[str]) -> str | None:
    """Put what ``keys`` say of the host's memory into ``offload``; return a note where its size is not known.

    ``model`` are the overrides that choose the model. What is said of a cache that is off goes to ``ignored``.
    """
    own = {key.partition(".")[2]: keys.pop(key) for key in list(keys) if key.startswith("host.")}
    if not own.get("on"):
        ignored |= {_FLAGS[key]: "the hierarchical cache is off" for key in own if key in _FLAGS}
        return None
    keys["offload.tiers"] = "[host,disk]" if "storage" in own else "[host]"
    keys["offload.write"] = own.get("write", "computed")
    for key, name in (("policy", "prefetch_policy"), ("least", "prefetch_tokens")):
        if key in own and "storage" in own:
            keys[f"offload.{name}"] = own[key]
        elif key in own:
            ignored[_FLAGS[key]] = "there is no --hicache-storage-backend"
    if "others" in own:
        ignored[_FLAGS["least"]] = "other settings of the backend than prefetch_threshold"
    if "storage" in own:
        ignored[_FLAGS["storage"]] = (
            "read as a drive of each client: set the capacity and bandwidth of offload.disk"
        )
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
