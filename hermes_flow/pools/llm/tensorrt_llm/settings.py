"""The settings of TensorRT-LLM's scheduler in a pool, and checks of their combinations."""

from __future__ import annotations

from hermes_flow.config.convert import shown
from hermes_flow.pools.kind import Handovers
from hermes_flow.pools.llm.schema import LLMPool
from hermes_flow.pools.llm.tensorrt_llm.schema import AttentionDpConfig
from hermes_flow.program.pools import TensorRTSettings
from hermes_flow.program.units import PS_PER_NS

WAITS = ("batch_wait_timeout_iters", "batch_wait_max_tokens_ratio", "batch_wait_timeout_ms")
_OWN_KEYS = ("capacity_scheduler_policy", "context_chunking_policy", *WAITS)
# source: TensorRT-LLM's micro-batch scheduler: chunks of at least so many tokens where attention has a window
_LEAST_WITH_WINDOW = 256
_NO_HANDOVERS = Handovers()
PS_PER_MS = PS_PER_NS * 1_000_000


def uses_tensorrt_llm(pool: LLMPool) -> bool:
    """Return whether TensorRT-LLM's scheduler runs the pool's clients."""
    return pool.engine.scheduler == "tensorrt_llm"


def tensorrt_settings(
    pool: LLMPool, handovers: Handovers = _NO_HANDOVERS, name: str = "llm"
) -> TensorRTSettings:
    """Return the scheduler's settings of the pool ``name``, which was checked and whose KV moves by ``handovers``."""
    chunking = pool.context_chunking_policy or "none"
    unit = pool.block_size
    balance = pool.attention_dp_config
    if pool.model.sliding_window is not None:
        unit = max(unit, _LEAST_WITH_WINDOW)
    return TensorRTSettings(
        capacity=pool.capacity_scheduler_policy or "guaranteed_no_evict",
        chunking=chunking,
        chunk_unit=None if chunking == "none" else unit,
        balance=(balance.timeout_iters, balance.batching_wait_iters) if balance.enable_balance else None,
        wait_steps=pool.batch_wait_timeout_iters or 0,
        wait_tokens=(pool.batch_wait_max_tokens_ratio or 0.0) * pool.max_num_batched_tokens,
        wait_ps=round((pool.batch_wait_timeout_ms or 0.0) * PS_PER_MS),
        side="prefill" if handovers.sends else "decode" if handovers.receives else "both",
        key=f"cluster.pools.{name}",
    )


def check_tensorrt_llm(pool: LLMPool, key: str, problems: list[str]) -> None:
    """Append combinations that TensorRT-LLM's scheduler does not support, and its keys where it does not run."""
    engine = pool.engine
    if not uses_tensorrt_llm(pool):
        problems.extend(
            f"{key}.{name}: {shown(getattr(pool, name))}, but the scheduler of engine {engine.name!r} has no such "
            "setting; it is one of engine=tensorrt_llm"
            for name in _OWN_KEYS
            if getattr(pool, name) is not None
        )
        _check_balance(pool, key, problems)
        return
    if pool.packing != "fcfs":
        problems.append(f"{key}.packing: {pool.packing!r} is no order of TensorRT-LLM; expected fcfs")
    for name, hint in (
        ("batching", "its scheduler has rules of its own"),
        ("preemption", "capacity_scheduler_policy says whether it pauses"),
    ):
        if getattr(pool, name) != getattr(engine, name):
            problems.append(
                f"{key}.{name}: {shown(getattr(pool, name))} has no effect with engine {engine.name!r}: {hint}; "
                "expected null"
            )
    if pool.pipeline_parallel > 1:
        problems.append(
            f"{key}.pipeline_parallel: {pool.pipeline_parallel} is not modelled with TensorRT-LLM's scheduler; "
            "expected 1"
        )
    if pool.data_parallel > 1 and pool.rank_routing is not None:
        problems.append(
            f"{key}.rank_routing: {pool.rank_routing}, but the ranks of TensorRT-LLM share one queue; expected null"
        )
    if pool.drafter is not None:
        problems.append(
            f"{key}.speculative: drafting is not modelled with TensorRT-LLM's scheduler; expected no draft, no head"
        )
    _check_waits(pool, key, problems)
    _check_balance(pool, key, problems)
    unit = tensorrt_settings(pool).chunk_unit
    if unit is not None and 1 <= pool.max_num_batched_tokens < unit:
        problems.append(
            f"{key}.max_num_batched_tokens: {pool.max_num_batched_tokens} is below a unit of chunks, {unit} tokens"
        )


def _check_waits(pool: LLMPool, key: str, problems: list[str]) -> None:
    """Prompts wait only where both limits of the wait are set: either of them at 0 ends every wait at once."""
    steps, share = pool.batch_wait_timeout_iters, pool.batch_wait_max_tokens_ratio
    for name, value, other in (
        ("batch_wait_timeout_iters", steps, "batch_wait_max_tokens_ratio"),
        ("batch_wait_max_tokens_ratio", share, "batch_wait_timeout_iters"),
    ):
        if value and not getattr(pool, other):
            problems.append(
                f"{key}.{name}: {value:g} has no effect without {other}: prompts wait while neither limit is "
                f"reached; expected 0, or {key}.{other} above 0"
            )
    if pool.max_num_seqs == 1 and steps and share:
        problems.append(
            f"{key}.batch_wait_timeout_iters: {steps} has no effect with max_num_seqs=1: no prompt runs beside "
            "decodes; expected 0"
        )
    if pool.data_parallel > 1:
        ranks = f"with data_parallel={pool.data_parallel}"
        problems.extend(
            f"{key}.{name}: {getattr(pool, name):g} is not modelled {ranks}; expected 0"
            for name in WAITS
            if getattr(pool, name)
        )


def _check_balance(pool: LLMPool, key: str, problems: list[str]) -> None:
    """Ranks wait for each other where TensorRT-LLM has several, and where ``enable_balance`` says so."""
    given, key = pool.attention_dp_config, f"{key}.attention_dp_config"
    if given == AttentionDpConfig():
        return
    if not given.enable_balance:
        problems.append(f"{key}: its numbers of steps have no effect unless enable_balance is true")
    elif given.timeout_iters <= 1 and given.batching_wait_iters == 0:
        problems.append(
            f"{key}.enable_balance: true has no effect with timeout_iters={given.timeout_iters} and "
            "batching_wait_iters=0: nobody waits; expected false, or more steps"
        )
    elif not uses_tensorrt_llm(pool) or pool.data_parallel == 1:
        problems.append(
            f"{key}.enable_balance: true, but the pool has no ranks of TensorRT-LLM; expected false, or "
            "engine=tensorrt_llm and data_parallel above 1"
        )


def _waits(settings: TensorRTSettings) -> str:
    text = ""
    if settings.wait_steps and settings.wait_tokens:
        text = f", prompts wait at most {settings.wait_steps} steps for one with {settings.wait_tokens:,.0f} tokens"
    if settings.wait_ps:
        text += f", {settings.wait_ps / PS_PER_MS:g} ms before each decision for new requests"
    if settings.balance is not None:
        text += (
            f", prompts wait at most {settings.balance[0]} steps until every rank has one, and {settings.balance[1]} "
            "more then"
        )
    return text


def tensorrt_note(pool: LLMPool) -> str:
    """Return how steps are filled, as a note in the compiled program."""
    settings = tensorrt_settings(pool)
    ahead = "overlapped" if pool.lookahead else "not overlapped"
    each = " on each rank" if pool.data_parallel > 1 else ""
    cut = "prompts not cut"
    if settings.chunk_unit is not None:
        cut = f"prompts cut to units of {settings.chunk_unit} ({settings.chunking.replace('_', ' ')})"
    return (
        f"TensorRT-LLM's scheduler{each}, {ahead}: {settings.capacity.replace('_', ' ')}, at most "
        f"{pool.max_num_seqs} requests and {pool.max_num_batched_tokens:,} tokens a step, {cut}, "
        f"blocks of {pool.block_size}{_waits(settings)}"
    )
