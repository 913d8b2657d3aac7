"""Finds the requests that no client of a pool could ever finish: too long for the model, or for its KV cache."""

from __future__ import annotations

import numpy as np

from hermes_flow.pools.llm.batching import plans_gangs
from hermes_flow.pools.llm.schema import LLMPool
from hermes_flow.pools.llm.sglang.settings import never_granted, uses_sglang
from hermes_flow.program.ops import Op
from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.units import Ints


def rejected(name: str, pool: LLMPool, client: LLMClientSpec, op: Op) -> dict[int, str]:
    """Return the requests of ``op`` that the clients of the pool called ``name`` reject, each with the reason."""
    if op.llm is None:
        return {}
    total = op.llm.prompt + op.llm.output
    reserved = pool.preemption == "none" or plans_gangs(pool.batching)
    place = name if pool.data_parallel == 1 else f"a rank of {name}"
    limits: tuple[tuple[int, Ints, str], ...] = (
        (pool.model.max_context, total, f"longer than the context of {pool.model.name}"),
        (
            (client.kv_blocks // pool.data_parallel - client.sequence_blocks) * client.block_size,
            total if reserved else total - 1,  # the last token is never computed
            f"larger than the KV cache of {place}",
        ),
    )
    if uses_sglang(pool):
        return _rejected_by_sglang(pool, client, op)
    if client.tensorrt_llm is not None:
        limits = (limits[0], (limits[1][0], total, limits[1][2]), *_uncut(client, op, total))
    found: dict[int, str] = {}
    for limit, tokens, reason in limits:
        too_long = tokens > limit
        if op.taken is not None:
            too_long &= op.taken
        for request in np.flatnonzero(too_long).tolist():
            found.setdefault(request, f"{reason} ({limit:,} tokens)")
    return found


def _rejected_by_sglang(pool: LLMPool, client: LLMClientSpec, op: Op) -> dict[int, str]:
    """Return the requests whose answers SGLang would cut: it lets none grow beyond its pool of tokens."""
    assert op.llm is not None
    prompt, output = op.llm.prompt, op.llm.output
    tokens, page = client.kv_blocks // pool.data_parallel * client.block_size, client.block_size
    context = prompt + output > pool.model.max_context
    memory = output > np.minimum(tokens - -(-prompt // page) * page - page - 1, tokens - 2 - prompt)
    whose = "clients" if pool.data_parallel == 1 else "ranks"
    own = f"the KV cache of {pool.model.name}'s {whose} ({tokens:,} tokens)"
    reasons = [
        (context, f"longer than the context of {pool.model.name} ({pool.model.max_context:,} tokens)"),
        (memory, f"larger than {own}"),
    ]
    if op.kv is not None:
        reasons.append((never_granted(client, prompt, output), f"larger, with reserved tokens, than {own}"))
    found: dict[int, str] = {}
    for too_long, reason in reasons:
        for request in np.flatnonzero(too_long if op.taken is None else too_long & op.taken).tolist():
            found.setdefault(request, reason)
    return found


def _uncut(client: LLMClientSpec, op: Op, total: Ints) -> tuple[tuple[int, Ints, str], ...]:
    """Return the longest prompt of TensorRT-LLM where it cuts none; a paused one comes again with its answer."""
    settings = client.tensorrt_llm
    if settings is None or settings.chunk_unit is not None or op.kv is not None or op.llm is None:
        return ()
    prompt = op.llm.prompt
    reason = "longer than a step, and context_chunking_policy is none"
    again = settings.capacity == "max_utilization"
    return ((client.max_num_batched_tokens, total - 1 if again else prompt, reason),)
