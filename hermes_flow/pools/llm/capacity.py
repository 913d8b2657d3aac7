"""How many KV blocks fit beside the weights."""

from __future__ import annotations

from dataclasses import dataclass

from hermes_flow.cost.shape import (
    BYTES,
    embedding_parameters,
    kv_bytes_per_token,
    pipeline_stages,
    stage_parameters,
    weight_bytes,
)
from hermes_flow.pools.llm.schema import LLMPool


@dataclass(frozen=True, slots=True)
class KVCapacity:
    """Blocks of one client, and the bytes per device that led to them; ``given`` if the config named them.

    The bytes are those of the pipeline stage with room for the fewest blocks. ``weight_bytes`` and ``block_bytes``
    count the draft model's too, where there is one; ``draft_bytes`` are its weights alone.
    """

    blocks: int
    usable_bytes: float
    weight_bytes: float
    reserved_bytes: float
    block_bytes: float
    given: bool
    draft_bytes: float = 0.0


def kv_capacity(pool: LLMPool) -> KVCapacity:
    """Return the KV capacity of one client of ``pool``: blocks ≤ 0 where the weights leave no room.

    blocks = (memory_utilization·memory − weights − reserved) / bytes of one block, per device; every
    tensor-parallel device holds its share of every block, every pipeline stage its layers' part of it, and each of
    the data-parallel ranks has blocks of its own. A draft model is held by the devices of the last stage.
    """
    hardware = pool.hardware
    memory = (hardware.usable_gb or hardware.memory_gb) * 1e9
    usable = pool.memory_utilization * memory
    reserved = hardware.reserved_gb * 1e9
    draft = _draft_bytes(pool)
    rooms = [(usable - weights - reserved, weights, block) for weights, block in _stage_bytes(pool)]
    # Where weights do not fit at all, the stage that lacks most.
    room, weights, block = min(rooms, key=lambda stage: (min(stage[0], 0.0), stage[0] // stage[2]))
    given = pool.kv_blocks is not None
    blocks = int(room // block) * pool.data_parallel if pool.kv_blocks is None else pool.kv_blocks
    return KVCapacity(blocks, usable, weights, reserved, block, given, draft)


def _draft_bytes(pool: LLMPool) -> float:
    draft = pool.speculative.draft
    return 0.0 if draft is None else weight_bytes(draft, pool.tensor_parallel)


def _stage_bytes(pool: LLMPool) -> list[tuple[float, float]]:
    """Bytes of weights and of one KV block on a device of each pipeline stage."""
    model, devices = pool.model, pool.tensor_parallel
    group = devices * pool.data_parallel if pool.expert_parallel else 1
    stages = pipeline_stages(model, pool.pipeline_parallel)
    last = len(stages) - 1
    found = []
    for index, stage in enumerate(stages):
        tables = (index == 0) + (index == last) if last else None
        weights = stage_parameters(model, stage, devices, group) * BYTES[model.precision.weights]
        weights += embedding_parameters(model, devices, tables) * BYTES["bf16"]
        token = kv_bytes_per_token(model, devices, stage.layers)
        draft = pool.speculative.draft
        if draft is not None and index == last:
            weights += _draft_bytes(pool)
            token += kv_bytes_per_token(draft, devices)
        found.append((weights, token * pool.block_size))
    return found
