"""The limits of a step that vLLM's server takes by the GPU, where nobody sets them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hermes_flow.errors import ConfigError

# source: vLLM, get_batch_defaults of vllm/engine/arg_utils.py, for the API server (vLLM 0.9 to 0.27)
_LARGE_GPU_BYTES = 70 * 2**30
LARGE_GPU_SEATS, _LARGE_GPU_TOKENS = 1024, 8192
_SEATS, _TOKENS = 256, 2048


def is_large_gpu(name: str, kind: str, memory_gb: float) -> bool:
    """Return whether vLLM's server takes the limits of large GPUs: 70 GiB and more, other than the A100."""
    return kind == "gpu" and memory_gb * 1e9 >= _LARGE_GPU_BYTES and "a100" not in name.lower()


def limits_by_gpu(pool: Mapping[str, Any], key: str) -> dict[str, int]:
    """Return the limits of a pool with ``server_limits: by_gpu``, whose other keys are filled; ``key`` is its own.

    Where prompts are not cut, the tokens of a step are at least the longest context, as in vLLM.

    Raises ConfigError where the rule is not one of the pool's engine, or has no figures for its hardware.
    """
    engine, hardware = pool.get("engine"), pool.get("hardware")
    assert isinstance(engine, Mapping)
    if engine.get("scheduler") != "vllm":
        raise ConfigError(
            "engine.server_limits",
            f"by_gpu is a rule of vLLM's server, and the engine of {key} is {engine.get('name')}; expected fixed",
        )
    memory = hardware.get("usable_gb") or hardware.get("memory_gb") if isinstance(hardware, Mapping) else None
    if not isinstance(hardware, Mapping) or not isinstance(memory, int | float):
        return {}  # named where the hardware is checked
    name, kind = str(hardware.get("name")), str(hardware.get("kind", "gpu"))
    batching, model = pool.get("batching"), pool.get("model")
    policy = batching.get("policy") if isinstance(batching, Mapping) else batching
    context = model.get("max_context") if isinstance(model, Mapping) else None
    return limits_on(
        name, kind, memory, context if policy == "mixed" and isinstance(context, int) else 0, key
    )


def limits_on(name: str, kind: str, memory_gb: float, longest: int, key: str) -> dict[str, int]:
    """Return the limits on a machine with so much memory; a step takes at least ``longest`` tokens.

    Raises ConfigError where the machine of the pool ``key`` is no GPU.
    """
    if kind != "gpu":
        raise ConfigError(
            "engine.server_limits",
            f"by_gpu, and {key} stands on {name}, which is no GPU; expected fixed, or {key}.max_num_seqs and "
            f"{key}.max_num_batched_tokens as the server logs them",
        )
    large = is_large_gpu(name, kind, memory_gb)
    tokens = max(_LARGE_GPU_TOKENS if large else _TOKENS, longest)
    return {"max_num_seqs": LARGE_GPU_SEATS if large else _SEATS, "max_num_batched_tokens": tokens}
