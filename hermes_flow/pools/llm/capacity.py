"""Computes how many KV blocks fit beside the weights."""

from __future__ import annotations

from dataclasses import dataclass

from hermes_flow.cost.shape import (
    BYTES,
    embedding_parameters,
    kv_bytes_per_token,
    pipeline_ranks,
    rank_parameters,
    weight_bytes,
)
from hermes_flow.pools.llm.schema import LLMPool
from hermes_flow.program.units import gb_to_bytes


@dataclass(frozen=True, slots=True)
class KVCapacity:
    """The KV blocks of one client and the bytes per device they follow from; ``given`` if the config sets them.

    The bytes are those of the pipeline rank with room for the fewest blocks. ``weight_bytes`` and ``block_bytes``
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
    """Return the KV capacity of one client of ``pool``; blocks are ≤ 0 if the weights leave no room.

    blocks = (memory_utilization·memory − weights − reserved) / bytes of one block, per device; every
    tensor-parallel device holds its share of every block, every pipeline rank its layers' part of it, and each of
    the data-parallel ranks has blocks of its own. A draft model is held by the devices of the last pipeline rank.
    """
    hardware = pool.hardware
    memory = gb_to_bytes(hardware.usable_gb or hardware.memory_gb)
    usable = pool.memory_utilization * memory
    reserved = gb_to_bytes(hardware.reserved_gb)
    draft = _draft_bytes(pool)
    rooms = [(usable - weights - reserved, weights, block) for weights, block in _rank_bytes(pool)]
    # Where weights do not fit at all, the rank that lacks most.
    room, weights, block = min(rooms, key=lambda rank: (min(rank[0], 0.0), rank[0] // rank[2]))
    given = pool.kv_blocks is not None
    blocks = int(room // block) * pool.data_parallel if pool.kv_blocks is None else pool.kv_blocks
    return KVCapacity(blocks, usable, weights, reserved, block, given, draft)


def _draft_bytes(pool: LLMPool) -> float:
    draft = pool.speculative.draft
    return 0.0 if draft is None else weight_bytes(draft, pool.tensor_parallel)


def _rank_bytes(pool: LLMPool) -> list[tuple[float, float]]:
    """Bytes of weights and of one KV block on a device of each pipeline rank."""
    model, tensor_parallel = pool.model, pool.tensor_parallel
    group = tensor_parallel * pool.data_parallel if pool.expert_parallel else 1
    ranks = pipeline_ranks(model, pool.pipeline_parallel)
    last = len(ranks) - 1
    found = []
    for index, rank in enumerate(ranks):
        tables = (index == 0) + (index == last) if last else None
        weights = rank_parameters(model, rank, tensor_parallel, group) * BYTES[model.precision.weights]
        weights += embedding_parameters(model, tensor_parallel, tables) * BYTES["bf16"]
        token = kv_bytes_per_token(model, tensor_parallel, rank.layers)
        draft = pool.speculative.draft
        if draft is not None and index == last:
            weights += _draft_bytes(pool)
            token += kv_bytes_per_token(draft, tensor_parallel)
        found.append((weights, token * pool.block_size))
    return found
