"""The settings of SGLang's scheduler in a pool, their defaults, and checks of their combinations."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hermes_flow.config.convert import shown
from hermes_flow.pools.kind import Handovers
from hermes_flow.pools.llm.schema import LLMPool
from hermes_flow.pools.llm.sglang.admission import MOST_RESERVED
from hermes_flow.pools.llm.sglang.state_slots import check_ratio
from hermes_flow.program.pools import LLMClientSpec, SGLangSettings
from hermes_flow.program.units import Ints

_ORDERS = ("fcfs", "lpm")
_OWN_KEYS = (
    "max_prefill_tokens",
    "schedule_conservativeness",
    "mixed_chunk",
    "mamba_full_memory_ratio",
    "num_reserved_decode_tokens",
    "scheduler_recv_interval",
)
# source: SGLang, num_reserved_decode_tokens of its server arguments (2026)
RESERVED_DECODE_TOKENS = 512
# source: SGLang 0.5.23, default of chunked_prefill_size: (below so many GiB of memory, tokens)
_CHUNKS_BY_MEMORY = ((20, 2048), (60, 4096), (160, 8192))
_LARGEST_CHUNK = 16384
# source: SGLang 0.5, _handle_data_parallelism of its server arguments: with data-parallel attention
_RANKED_CONSERVATIVENESS = 0.3
_GIB = 1 << 30
_NO_HANDOVERS = Handovers()


def uses_sglang(pool: LLMPool) -> bool:
    """Return whether SGLang's scheduler runs the pool's clients."""
    return pool.engine.scheduler == "sglang"


def sglang_settings(
    pool: LLMPool, handovers: Handovers = _NO_HANDOVERS, slots: int = 0, seed: int = 0, name: str = "llm"
) -> SGLangSettings:
    """Return the scheduler's settings of the pool ``name``, which was checked and whose KV moves by ``handovers``.

    ``slots`` are those for states on each of its ranks, if it sets some aside; ``seed`` draws the rooms of requests.
    """
    chunk = pool.chunked_prefill_size
    if chunk == "auto":
        memory = (pool.hardware.usable_gb or pool.hardware.memory_gb) * 1e9 / _GIB
        default = next((tokens for below, tokens in _CHUNKS_BY_MEMORY if memory < below), _LARGEST_CHUNK)
        chunk = max(1, default // pool.data_parallel)
    assert not isinstance(chunk, str)
    conservativeness = 1.0 if pool.schedule_conservativeness is None else pool.schedule_conservativeness
    if pool.data_parallel > 1:
        conservativeness *= _RANKED_CONSERVATIVENESS
    return SGLangSettings(
        max_prefill_tokens=pool.max_prefill_tokens or 16384,
        chunked_prefill_size=chunk,
        schedule_conservativeness=conservativeness,
        mixed_chunk=bool(pool.mixed_chunk),
        longest_prefix=pool.packing == "lpm",
        receive_interval=pool.scheduler_recv_interval or 1,
        seats_of_states=0 < slots < pool.max_num_seqs,
        side="prefill" if handovers.sends else "decode" if handovers.receives else "both",
        reserved_decode_tokens=RESERVED_DECODE_TOKENS
        if pool.num_reserved_decode_tokens is None
        else pool.num_reserved_decode_tokens,
        room_seed=seed,
        key=f"cluster.pools.{name}",
    )


def longest_step(pool: LLMPool, longest: int) -> int:
    """Return the most tokens that a step can have, where no sequence has more than ``longest``."""
    settings = sglang_settings(pool)
    if settings.chunked_prefill_size is not None:
        prefill = settings.chunked_prefill_size + pool.block_size
    else:
        prefill = settings.max_prefill_tokens + longest
    return prefill + pool.max_num_seqs


def check_sglang(pool: LLMPool, key: str, problems: list[str]) -> None:
    """Append combinations that SGLang's scheduler does not support, and keys without effect for other engines."""
    engine = pool.engine
    if not uses_sglang(pool):
        given = [name for name in _OWN_KEYS if getattr(pool, name) is not None]
        given += ["chunked_prefill_size"] if pool.chunked_prefill_size != "auto" else []
        problems.extend(
            f"{key}.{name}: {shown(getattr(pool, name))}, but the scheduler of engine {engine.name!r} has no such "
            "setting; it is one of engine=sglang"
            for name in given
        )
        return
    check_ratio(pool, key, problems)
    if pool.packing not in _ORDERS:
        problems.append(
            f"{key}.packing: {pool.packing!r} is not an order of SGLang; expected one of: fcfs, lpm"
        )
    for name, hint in (
        ("batching", "its scheduler has rules of its own"),
        ("max_num_batched_tokens", "max_prefill_tokens and chunked_prefill_size bound its steps"),
        ("preemption", "it retracts"),
    ):
        if getattr(pool, name) != getattr(engine, name):
            problems.append(
                f"{key}.{name}: {shown(getattr(pool, name))} has no effect with engine {engine.name!r}: {hint}; "
                "expected null"
            )
    if pool.pipeline_parallel > 1:
        problems.append(
            f"{key}.pipeline_parallel: {pool.pipeline_parallel} is not modelled with SGLang's scheduler; expected 1"
        )
    if pool.data_parallel > 1 and pool.rank_routing == "least_requests":
        problems.append(
            f"{key}.rank_routing: least_requests is vLLM's rule; expected round_robin, shortest_queue, "
            "follow_bootstrap_room or null"
        )
    if (pool.scheduler_recv_interval or 1) > 1 and pool.offload is not None and pool.offload.tiers:
        problems.append(
            f"{key}.scheduler_recv_interval: {pool.scheduler_recv_interval} is not modelled with offload; expected 1"
        )
    if (pool.scheduler_recv_interval or 1) > 1 and pool.data_parallel > 1:
        problems.append(
            f"{key}.scheduler_recv_interval: {pool.scheduler_recv_interval} is not modelled with "
            f"data_parallel={pool.data_parallel}; expected 1"
        )
    if pool.drafter is not None:
        problems.append(
            f"{key}.speculative: drafting is not modelled with SGLang's scheduler; expected no draft, no head"
        )


def sglang_note(pool: LLMPool, seats: int) -> str:
    """Return how steps of at most ``seats`` sequences are filled, as a note in the compiled program."""
    settings = sglang_settings(pool)
    ahead = "overlapped" if pool.lookahead else "not overlapped"
    chunk = settings.chunked_prefill_size
    cut = "prompts not cut" if chunk is None else f"prompts cut to {chunk:,} tokens a step"
    mixed = ", mixed with decodes" if settings.mixed_chunk else ""
    each = " on each rank" if pool.data_parallel > 1 else ""
    order = "longest prefix first" if settings.longest_prefix else "first come first served"
    looks = ""
    if pool.data_parallel > 1:
        looks = f", schedule_conservativeness {settings.schedule_conservativeness:g} on ranks"
    if settings.receive_interval > 1:
        looks = f", new requests looked for after {settings.receive_interval} decode steps"
    return (
        f"SGLang's scheduler{each}, {ahead}: at most {seats} running requests, {cut}{mixed}, "
        f"{settings.max_prefill_tokens:,} prefill tokens, {order}, pages of {pool.block_size}{looks}"
    )


def side_notes(settings: SGLangSettings) -> list[str]:
    """Return how a client that only prefills or only decodes takes in requests, as notes in the compiled program."""
    if settings.side == "prefill":
        return ["a prompt waits until a decode client has memory for its KV, which stays until it is sent"]
    if settings.side == "decode":
        kept = settings.reserved_decode_tokens
        return [
            f"takes KV while {kept:,} tokens stay free for each of its requests, and delivers first tokens"
        ]
    return []


def longest_answer(pool_tokens: int, page: int, prompt: int) -> int:
    """Return the most tokens that SGLang lets an answer have after a prompt, in a pool of ``pool_tokens``."""
    pages = -(-prompt // page) * page
    return min(pool_tokens - pages - page - 1, pool_tokens - 2 - prompt)


def never_granted(client: LLMClientSpec, prompt: Ints, limit: Ints) -> NDArray[np.bool_]:
    """Return which prompts a decode client never has memory for, though nobody else is there."""
    settings = client.sglang
    assert settings is not None
    longest = np.minimum(limit, MOST_RESERVED)
    return (
        prompt + np.maximum(settings.reserved_decode_tokens, longest)
        > client.kv_blocks // client.attention_ranks * client.block_size
    )
