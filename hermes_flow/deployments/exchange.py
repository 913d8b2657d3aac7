"""How ranks exchange tokens with experts, in the flags of vLLM and SGLang."""

from __future__ import annotations

from typing import Any

from hermes_flow.deployments.settings import Keys, Value
from hermes_flow.pools.llm.schema import LLMPool

FLAGS = {"vllm": "--all2all-backend", "sglang": "--moe-a2a-backend"}
# source: all2all_backend of vllm/config/parallel.py, and MoeA2ABackend of sglang/srt/layers/moe/utils.py (2026). Each
# engine has several kernels that send; DeepEP's are those that both have
_GATHERS = {"vllm": "allgather_reducescatter", "sglang": "none"}
_SENDS = {"vllm": "deepep_low_latency", "sglang": "deepep"}
_GATHERING = ("allgather_reducescatter", "naive", "none")


def exchange(flag: str, value: Value) -> Keys:
    """Return the key of a flag: gathering, or any of the kernels that send tokens to their experts."""
    gathers = str(value).lower() in _GATHERING
    return {"all2all_backend": "allgather_reducescatter" if gathers else "alltoall"}


def leave_out_exchange(keys: dict[str, Any], engine: str, ignored: dict[str, str]) -> None:
    """Leave the key out where no ranks exchange tokens."""
    if "all2all_backend" in keys and not (keys.get("expert_parallel") and keys.get("data_parallel", 1) > 1):
        del keys["all2all_backend"]
        ignored[FLAGS[engine]] = "no effect here: no ranks exchange tokens with experts"


def exchange_flags(pool: LLMPool, engine: str) -> dict[str, Any]:
    """Return the flag of a pool that says how its ranks exchange tokens."""
    if pool.all2all_backend is None:
        return {}
    names = _SENDS if pool.all2all_backend == "alltoall" else _GATHERS
    return {FLAGS[engine]: names[engine]}
