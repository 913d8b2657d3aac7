"""How many KV blocks fit beside the weights."""

from __future__ import annotations

from dataclasses import dataclass

from hermes_flow.config.schema import LLMPool
from hermes_flow.cost.shape import kv_bytes_per_token, weight_bytes


@dataclass(frozen=True, slots=True)
class KVCapacity:
    """Blocks of one client, and the bytes per device that led to them; ``given`` if the config named them."""

    blocks: int
    usable_bytes: float
    weight_bytes: float
    reserved_bytes: float
    block_bytes: float
    given: bool


def kv_capacity(pool: LLMPool) -> KVCapacity:
    """Return the KV capacity of one client of ``pool``: blocks ≤ 0 where the weights leave no room.

    blocks = (memory_utilization·memory − weights − reserved) / bytes of one block, per device; every
    tensor-parallel device holds its share of every block.
    """
    hardware = pool.hardware
    devices = pool.tensor_parallel
    memory = (hardware.usable_gb or hardware.memory_gb) * 1e9
    usable = pool.memory_utilization * memory
    weights = weight_bytes(pool.model, devices)
    reserved = hardware.reserved_gb * 1e9
    block = kv_bytes_per_token(pool.model, devices) * pool.block_size
    blocks = pool.kv_blocks if pool.kv_blocks is not None else int((usable - weights - reserved) // block)
    return KVCapacity(blocks, usable, weights, reserved, block, given=pool.kv_blocks is not None)
