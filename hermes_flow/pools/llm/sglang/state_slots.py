"""The slots that SGLang sets aside for states of constant size, where no prefix is cached."""

from __future__ import annotations

from hermes_flow.config.convert import shown
from hermes_flow.config.mixer_shape import state_layers
from hermes_flow.pools.llm.schema import LLMPool

# source: SGLang 0.5, mamba_full_memory_ratio of its server arguments
MAMBA_FULL_MEMORY_RATIO = 0.9


def state_slots(pool: LLMPool, room: float, state_bytes: float) -> int:
    """Return the slots of ``state_bytes`` each on a device with ``room`` bytes for states and KV.

    Every running request has one. With ``max_num_seqs`` there is one for each seat; without, states take
    ``mamba_full_memory_ratio`` times the memory of KV (SGLang 0.5, ``_handle_max_mamba_cache``, without its
    radix cache).
    """
    if pool.engine.scheduler != "sglang" or not state_bytes:
        return 0
    if "max_num_seqs" not in pool.from_engine:
        return pool.max_num_seqs
    ratio = pool.mamba_full_memory_ratio or MAMBA_FULL_MEMORY_RATIO
    return max(0, int(room * ratio / (1.0 + ratio) // state_bytes))


def check_ratio(pool: LLMPool, key: str, problems: list[str]) -> None:
    """Append a problem where ``mamba_full_memory_ratio`` has no effect."""
    if pool.mamba_full_memory_ratio is None:
        return
    given = f"{key}.mamba_full_memory_ratio: {shown(pool.mamba_full_memory_ratio)} has no effect"
    if not state_layers(pool.model):
        problems.append(f"{given}: {pool.model.name} has no layers that keep a state; expected null")
    elif "max_num_seqs" not in pool.from_engine:
        problems.append(
            f"{given} with max_num_seqs, for which SGLang sets states aside; expected one of them null"
        )
