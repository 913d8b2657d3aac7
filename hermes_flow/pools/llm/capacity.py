"""Computes how many KV blocks fit beside the weights."""

from __future__ import annotations

import math

from hermes_flow.config.shape import pipeline_ranks
from hermes_flow.config.shape import whole as all_layers
from hermes_flow.cost.kv import kv_bytes_per_token, kv_layers, state_bytes_per_sequence
from hermes_flow.cost.weights import embedding_bytes, rank_weight_bytes, side_encoder_bytes, weight_bytes
from hermes_flow.cost.windows import SHORT_WINDOW
from hermes_flow.pools.llm.batching import plans_gangs
from hermes_flow.pools.llm.reserve import ReservedPart, reserved_parts
from hermes_flow.pools.llm.schema import LLMPool
from hermes_flow.pools.llm.sglang.state_slots import state_slots
from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.program.units import gb_to_bytes


@dataclass(frozen=True, slots=True)
class KVCapacity:
    """The KV blocks of one client and the bytes per device they follow from; ``given`` if the config sets them.

    The bytes are those of the pipeline rank with room for the fewest blocks. ``weight_bytes`` and ``block_bytes``
    count the draft model's too, where there is one; ``draft_bytes`` are its weights alone. ``window_bytes`` are set
    aside for the KV of layers with a sliding window, which ``block_bytes`` then leaves out. Every sequence takes
    ``sequence_blocks`` blocks besides those of its tokens, for states and short windows; or ``state_slots`` states,
    ``state_bytes`` in all, are set aside. ``tokens`` is what an engine reports: the tokens of as many sequences of
    the longest context as fit. ``reserved_parts`` add up to ``reserved_bytes``.
    """

    blocks: int
    usable_bytes: float
    weight_bytes: float
    reserved_bytes: float
    block_bytes: float
    given: bool
    draft_bytes: float = 0.0
    window_bytes: float = 0.0
    sequence_blocks: int = 0
    state_slots: int = 0
    state_bytes: float = 0.0
    tokens: int = 0
    reserved_parts: tuple[ReservedPart, ...] = ()


@dataclass(frozen=True, slots=True)
class _Rank:
    """Bytes on a device of one pipeline rank: its weights, one KV block, KV set aside for windows.

    ``sequence`` bytes are held by every sequence, and ``reported`` by one of the longest context beside its blocks.
    """

    weights: float
    block: float
    windows: float = 0.0
    sequence: float = 0.0
    reported: float = 0.0


def kv_capacity(pool: LLMPool) -> KVCapacity:
    """Return the KV capacity of one client of ``pool``; blocks are ≤ 0 if the weights leave no room.

    blocks = (memory_utilization·memory − weights − reserved) / bytes of one block, per device; every
    tensor-parallel device holds its share of every block, every pipeline rank its layers' part of it, and each of
    the data-parallel ranks has blocks of its own. A draft model is held by the devices of the last pipeline rank.

    Layers with a sliding window hold at most a window of each sequence. Short windows, which are nearly always full,
    and states of constant size lie in blocks of the same memory, which every sequence takes, as in vLLM. SGLang sets
    slots for states aside. For long windows two bounds are safe whatever the lengths: every layer keeps all tokens,
    or ``max_num_seqs`` windows are set aside and blocks hold the other layers alone. The one that leaves more tokens
    counts.
    """
    hardware = pool.hardware
    memory = gb_to_bytes(hardware.usable_gb or hardware.memory_gb)
    parts, adapters = reserved_parts(pool), _adapter_bytes(pool)
    if adapters:
        parts = (*parts, ReservedPart("adapters", adapters))
    reserved = math.fsum(part.bytes for part in parts)
    draft = _draft_bytes(pool)
    given, aside = pool.kv_blocks is not None, pool.engine.scheduler == "sglang"  # where its states lie
    found = []
    for ranks in (_rank_bytes(pool), _windowed_rank_bytes(pool)):
        if not ranks:
            continue
        rooms = []
        for rank in ranks:
            taken = rank.weights + reserved + rank.windows
            free = _usable(pool, memory, reserved - adapters, taken) - taken
            slots = state_slots(pool, free, rank.sequence)
            rooms.append((free - slots * rank.sequence, rank, slots))
        # Where weights do not fit at all, the rank that lacks most.
        room, rank, slots = min(rooms, key=lambda each: (min(each[0], 0.0), each[0] // each[1].block))
        of_rank = int(room // rank.block) if pool.kv_blocks is None else pool.kv_blocks
        blocks = of_rank * pool.data_parallel
        found.append(
            KVCapacity(
                blocks,
                _usable(pool, memory, reserved - adapters, rank.weights + reserved + rank.windows),
                rank.weights,
                reserved,
                rank.block,
                given,
                draft,
                rank.windows * (not given),
                0 if aside else max(-int(-each.sequence // each.block) for each in ranks),
                slots,
                slots * rank.sequence,
                _reported_tokens(pool, blocks, rank),
                parts,
            )
        )
    return max(found, key=lambda capacity: capacity.blocks)


def _reported_tokens(pool: LLMPool, blocks: int, rank: _Rank) -> int:
    """Return the tokens of as many sequences of the longest context as fit (vLLM, get_max_concurrency)."""
    longest, size = pool.model.max_context, pool.block_size
    if not rank.reported or pool.engine.scheduler == "sglang":
        return blocks * size
    return int(blocks * longest / (longest / size + rank.reported / rank.block))


def _usable(pool: LLMPool, memory: float, reserved: float, taken: float) -> float:
    """Return the bytes that the engine uses in all, which depend on what it takes its share of.

    vLLM takes it of the whole memory, SGLang of what is free before it loads the weights, and TensorRT-LLM of what is
    left beside all that is ``taken``, ``reserved`` bytes included.
    """
    share, scheduler = pool.memory_utilization, pool.engine.scheduler
    if scheduler == "tensorrt_llm":
        return taken + share * (memory - taken)
    if scheduler == "sglang" and pool.hardware.reserved_gb is None:
        return reserved + share * (memory - reserved)
    return share * memory


def _adapter_bytes(pool: LLMPool) -> float:
    """Bytes on one device that the engine sets aside for adapters."""
    if pool.adapters is None:
        return 0.0
    from hermes_flow.cost.adapters import adapter_bytes

    return pool.adapters.slots * adapter_bytes(pool.model, pool.adapters, pool.tensor_parallel)


def _draft_bytes(pool: LLMPool) -> float:
    """Bytes of what drafts on one device; a head shares the model's embedding, and its output head but for eagle3."""
    draft, devices = pool.drafter, pool.tensor_parallel
    if draft is None:
        return 0.0
    if pool.speculative.head is None:
        return weight_bytes(draft, devices)
    tables = 1 if pool.speculative.head == "eagle3" else 0
    group = devices if pool.expert_parallel else 1
    return rank_weight_bytes(draft, all_layers(draft), devices, group) + embedding_bytes(
        draft, devices, tables
    )


def _windowed_rank_bytes(pool: LLMPool) -> list[_Rank]:
    """The pipeline ranks whose blocks leave out layers with a window; none where no layer has one, or all have.

    A window is held in whole blocks, one of them begun before it, and prompts of a step are held whole. A sequence of
    the longest context counts with a step's tokens before its window (vLLM, ``max_memory_usage_bytes`` of
    ``SlidingWindowSpec``).
    """
    model, size, longest = pool.model, pool.block_size, pool.model.max_context
    if not any(kind.window for kind in kv_layers(model, pool.tensor_parallel)):
        return []
    others = pool.engine.scheduler != "vllm"
    apart = others or plans_gangs(pool.batching) or pool.preemption == "swap"
    found = []
    for whole, rank in zip(_rank_bytes(pool), pipeline_ranks(model, pool.pipeline_parallel), strict=True):
        windowed, aside, sequence, reported = 0.0, 0.0, 0.0, 0.0
        for kind in kv_layers(model, pool.tensor_parallel, rank.layers):
            if kind.window is None:
                continue
            token = kind.layers * kind.bytes_per_token
            held = token * min((-(-kind.window // size) + 1) * size, longest)
            before = min(kind.window - 1 + pool.max_num_batched_tokens, longest)
            windowed += token
            if apart or kind.window > SHORT_WINDOW:
                aside += pool.max_num_seqs * held + token * pool.max_num_batched_tokens
            else:
                aside += token * pool.max_num_batched_tokens
                sequence += held
                reported += token * (-(-before // size) + 1) * size
        growing = whole.block - windowed * size
        if growing <= 0.0:
            return []
        state = whole.sequence
        found.append(_Rank(whole.weights, growing, aside, sequence + state, reported + state))
    return found


def _rank_bytes(pool: LLMPool) -> list[_Rank]:
    """Bytes of weights and of one KV block of all layers on a device of each pipeline rank."""
    model, tensor_parallel = pool.model, pool.tensor_parallel
    group = tensor_parallel * pool.data_parallel if pool.expert_parallel else 1
    ranks = pipeline_ranks(model, pool.pipeline_parallel)
    last = len(ranks) - 1
    found = []
    for index, rank in enumerate(ranks):
        tables = (index == 0) + (index == last) if last else None
        weights = rank_weight_bytes(model, rank, tensor_parallel, group, pool.redundant_experts)
        weights += embedding_bytes(model, tensor_parallel, tables)
        if index == 0:
            weights += side_encoder_bytes(model, tensor_parallel)
        token = kv_bytes_per_token(model, tensor_parallel, rank.layers)
        state = state_bytes_per_sequence(model, tensor_parallel, rank.layers)
        draft = pool.drafter
        if draft is not None and index == last:
            weights += _draft_bytes(pool)
            token += kv_bytes_per_token(draft, tensor_parallel)
        found.append(_Rank(weights, token * pool.block_size, sequence=state, reported=state))
    return found
