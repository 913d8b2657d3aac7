"""Checks that one client of an LLM pool can exist: parallelism, room for weights and KV."""

from __future__ import annotations

from dataclasses import replace

from hermes_flow.config.convert import shown
from hermes_flow.config.mixer_shape import split_units, state_layers
from hermes_flow.config.schema import Model
from hermes_flow.cost.kv import state_bytes_per_sequence
from hermes_flow.pools.llm.batching import plans_gangs, policy_name
from hermes_flow.pools.llm.by_priority.settings import check_priority
from hermes_flow.pools.llm.capacity import KVCapacity, kv_capacity
from hermes_flow.pools.llm.check_speculation import check_speculation
from hermes_flow.pools.llm.expert_kernels import check_expert_kernels
from hermes_flow.pools.llm.held_contexts import check_held_contexts, holds_contexts
from hermes_flow.pools.llm.offload.check import check_offload
from hermes_flow.pools.llm.reserve import check_reserve
from hermes_flow.pools.llm.schema import LLMPool
from hermes_flow.pools.llm.sglang.settings import check_sglang
from hermes_flow.pools.llm.tensorrt_llm.settings import check_tensorrt_llm
from hermes_flow.program.units import bytes_to_gb

_LARGE_RESERVE = 0.1  # of the usable memory
_UNCERTAIN = 1.1  # a server may have this many times the blocks that are reckoned
# What frees memory for KV where an engine's limits are far above its defaults, or its share of the memory is small.
_STEP_TOKENS, _SEATS, _SHARE = 2048, 256, 0.9


def check_llm_pool(pool: LLMPool, key: str, problems: list[str], sound: bool) -> KVCapacity | None:
    """Append the problems of the pool; ``sound`` is False if its numbers cannot be used for further checks.

    Return its KV capacity, or None where that cannot be reckoned.
    """
    model, draft = pool.model, pool.speculative.draft
    obstacle = prefix_cache_obstacle(pool)
    if pool.prefix_cache and obstacle is not None:
        problems.append(f"{key}.prefix_cache: true, but {obstacle}; expected false or null")
    if model.kind != "decoder":
        problems.append(f"{key}.model: {model.name} is an {model.kind}; an LLM pool needs a decoder")
    if sound:
        check_heads(model, pool.tensor_parallel, key, problems)
        if draft is not None and draft.name != model.name:
            check_heads(draft, pool.tensor_parallel, key, problems)
    _check_parallelism(pool, key, problems, sound)
    check_speculation(pool, key, problems, sound)
    _check_states(pool, key, problems)
    check_sglang(pool, key, problems)
    check_tensorrt_llm(pool, key, problems)
    check_reserve(pool, key, problems)
    check_expert_kernels(pool, key, problems)
    _check_longest_chunk(pool, key, problems)
    check_priority(pool, key, problems)
    check_held_contexts(pool, key, problems)
    if pool.adapters is not None:
        from hermes_flow.pools.llm.adapters import check_adapters

        check_adapters(pool, pool.adapters, key, problems)
    if pool.engine.scheduler == "vllm":
        _check_budget(pool, key, problems)
    capacity = None
    if sound and pool.pipeline_parallel <= model.layers:
        capacity = _checked_capacity(pool, key, problems)
    check_offload(pool, key, problems, capacity)
    return capacity


def more_than_fits(name: str, pool: LLMPool) -> list[str]:
    """Return a warning where ``kv_blocks`` of the pool called ``name`` are more than its memory has room for."""
    if pool.kv_blocks is None:
        return []
    fit = max(0, kv_capacity(replace(pool, kv_blocks=None)).blocks)
    if pool.kv_blocks <= _UNCERTAIN * fit:
        return []
    return [
        f"cluster.pools.{name}.kv_blocks: {pool.kv_blocks:,}, but the memory of {pool.devices} × "
        f"{pool.hardware.name} has room for {fit:,} blocks"
    ]


def prefix_cache_obstacle(pool: LLMPool) -> str | None:
    """Return why the pool's settings exclude a prefix cache, or None if they allow it."""
    if plans_gangs(pool.batching):
        return f"{policy_name(pool.batching)} batching pads its prompts and reuses none"
    if state_layers(pool.model):
        return f"{pool.model.name} has layers that keep a state, which blocks of a prompt do not bring back"
    if holds_contexts(pool):
        return "retrieved_kv: held is not modelled with one"
    return None


def _check_states(pool: LLMPool, key: str, problems: list[str]) -> None:
    """Check that the pool's settings can hold states of constant size beside KV."""
    if not state_layers(pool.model):
        return
    why = f"the states of {pool.model.name}'s linear layers are not modelled with it"
    if pool.engine.scheduler == "tensorrt_llm":
        problems.append(f"{key}.engine: {pool.engine.name}: {why}; expected engine=vllm or engine=sglang")
    if plans_gangs(pool.batching):
        problems.append(f"{key}.batching: {policy_name(pool.batching)}: {why}; expected another policy")
    if pool.preemption == "swap":
        problems.append(f"{key}.preemption: swap: {why}; expected recompute or none")


def check_heads(model: Model, tensor_parallel: int, key: str, problems: list[str]) -> None:
    """Check that the attention heads can be divided among the tensor-parallel devices."""
    if model.heads % tensor_parallel:
        problems.append(
            f"{key}.tensor_parallel: {tensor_parallel} does not divide the {model.heads} attention heads of "
            f"{model.name}"
        )
    elif model.kv_heads % tensor_parallel and tensor_parallel % model.kv_heads:
        problems.append(
            f"{key}.tensor_parallel: {tensor_parallel} does not fit the {model.kv_heads} KV heads of {model.name}"
        )
    for name, mixer in model.mixers.items():
        what, count = split_units(mixer)
        if count % tensor_parallel:
            problems.append(
                f"{key}.tensor_parallel: {tensor_parallel} does not divide the {count} {what} of {name} in "
                f"{model.name}"
            )


def _check_parallelism(pool: LLMPool, key: str, problems: list[str], sound: bool) -> None:
    model, experts = pool.model, pool.model.experts
    if sound and pool.pipeline_parallel > model.layers:
        problems.append(
            f"{key}.pipeline_parallel: {pool.pipeline_parallel} is above the {model.layers} layers of {model.name}"
        )
    if pool.pipeline_parallel > 1 and plans_gangs(pool.batching):
        gang = policy_name(pool.batching)
        problems.append(
            f"{key}.pipeline_parallel: a gang of {gang!r} is not cut into micro-batches for several pipeline ranks; "
            "expected 1"
        )
    if pool.data_parallel > 1 and experts is None:
        problems.append(
            f"{key}.data_parallel: {pool.data_parallel} ranks share the experts of a mixture, which {model.name} is "
            f"not; expected 1 (count={pool.data_parallel} makes replicas)"
        )
    _check_ranks(pool, key, problems)
    if pool.all2all_backend is not None and not (pool.expert_parallel and pool.data_parallel > 1):
        problems.append(
            f"{key}.all2all_backend: {pool.all2all_backend} has no effect unless ranks exchange tokens; expected "
            "null, or data_parallel above 1 and expert_parallel=true"
        )
    if not pool.expert_parallel:
        if pool.redundant_experts:
            problems.append(
                f"{key}.redundant_experts: {pool.redundant_experts} has no effect unless devices hold whole experts; "
                "expected 0, or expert_parallel=true"
            )
        return
    group = pool.tensor_parallel * pool.data_parallel
    if experts is None:
        problems.append(f"{key}.expert_parallel: {model.name} has no experts; expected false")
    elif pool.redundant_experts and group == 1:
        problems.append(
            f"{key}.redundant_experts: {pool.redundant_experts} has no effect on one device; expected 0"
        )
    elif sound and (experts.count + pool.redundant_experts) % group:
        copies = f" and {pool.redundant_experts} redundant ones" if pool.redundant_experts else ""
        problems.append(
            f"{key}.expert_parallel: tensor_parallel × data_parallel = {group} devices do not divide the "
            f"{experts.count} experts of {model.name}{copies}; {key}.redundant_experts={-experts.count % group} "
            "would fill them"
        )


def _check_ranks(pool: LLMPool, key: str, problems: list[str]) -> None:
    """Check that the pool's settings go with ranks of data-parallel attention, each a scheduler of its own."""
    if pool.data_parallel == 1:
        if pool.rank_routing is not None:
            problems.append(
                f"{key}.rank_routing: {pool.rank_routing} has no effect with one rank; expected null"
            )
        return
    if pool.rank_routing in ("shortest_queue", "follow_bootstrap_room") and pool.engine.scheduler == "vllm":
        problems.append(
            f"{key}.rank_routing: {pool.rank_routing} is SGLang's rule; expected least_requests, round_robin or null"
        )
    if pool.pipeline_parallel > 1:
        problems.append(
            f"{key}.pipeline_parallel: {pool.pipeline_parallel} ranks one after another are not modelled together "
            f"with data_parallel={pool.data_parallel}; expected 1"
        )
    if plans_gangs(pool.batching):
        problems.append(
            f"{key}.batching: {policy_name(pool.batching)} plans whole gangs, and the ranks of "
            f"data_parallel={pool.data_parallel} take single steps together; expected another policy"
        )


def _check_budget(pool: LLMPool, key: str, problems: list[str]) -> None:
    """A step must have room for every running sequence."""
    drafted = 0 if pool.drafter is None else pool.speculative.tokens
    needed = pool.max_num_seqs * (1 + drafted)
    if pool.max_num_batched_tokens >= needed:
        return
    if drafted:
        problems.append(
            f"{key}.max_num_batched_tokens: {pool.max_num_batched_tokens} is below {needed}, which is max_num_seqs "
            f"({pool.max_num_seqs}) × {1 + drafted}; every running sequence takes {drafted} drafted tokens and one "
            "more in each step"
        )
    else:
        problems.append(
            f"{key}.max_num_batched_tokens: {pool.max_num_batched_tokens} is below max_num_seqs "
            f"({pool.max_num_seqs}); every running sequence takes a token in each step"
        )


def _check_longest_chunk(pool: LLMPool, key: str, problems: list[str]) -> None:
    """The limit of one prompt in a step is modelled for vLLM's scheduler, which cuts prompts."""
    if not pool.long_prefill_token_threshold:
        return
    key = f"{key}.long_prefill_token_threshold: {pool.long_prefill_token_threshold}"
    if pool.engine.scheduler != "vllm":
        problems.append(
            f"{key}, but the scheduler of engine {pool.engine.name!r} has no such setting; it is one of engine=vllm"
        )
    elif policy_name(pool.batching) != "chunked":
        name = policy_name(pool.batching)
        problems.append(
            f"{key}, but prompts are cut by it with batching=chunked only, not {name}; expected 0"
        )
    if pool.pipeline_parallel > 1:
        problems.append(f"{key} is not modelled with pipeline_parallel={pool.pipeline_parallel}; expected 0")
    if pool.drafter is not None:
        problems.append(f"{key} is not modelled with speculative decoding; expected 0")


def _checked_capacity(pool: LLMPool, key: str, problems: list[str]) -> KVCapacity:
    model, draft = pool.model, pool.drafter
    capacity = kv_capacity(pool)
    if _lacks_states(pool, capacity, key, problems):
        return capacity
    if capacity.blocks >= 1 or capacity.given:
        return capacity
    if (tokens := _tokens_of_small_blocks(pool)) > 0:
        size = bytes_to_gb(capacity.block_bytes)
        problems.append(
            f"{key}.block_size: a block of {pool.block_size:,} tokens takes {size:,.1f} GB, and the memory has room "
            f"for the KV of {tokens:,} tokens; expected a smaller block"
        )
        return capacity
    beside = f" and of its draft {draft.name} ({draft.precision.weights})" if draft is not None else ""
    reserved = ""
    if capacity.reserved_bytes > _LARGE_RESERVE * capacity.usable_bytes:
        reserved = f", and {bytes_to_gb(capacity.reserved_bytes):,.1f} GB are reserved"
        if capacity.reserved_parts:
            reserved += f" (most of it for {max(capacity.reserved_parts, key=lambda part: part.bytes).name})"
    problems.append(
        f"{key}: the weights of {model.name} ({model.precision.weights}){beside} take "
        f"{bytes_to_gb(capacity.weight_bytes):.1f} GB on each of {pool.devices} × {pool.hardware.name}{reserved}, "
        f"which leaves no room for KV in {bytes_to_gb(capacity.usable_bytes):.1f} GB; {_what_fits(pool, key)}"
    )
    return capacity


def _lacks_states(pool: LLMPool, capacity: KVCapacity, key: str, problems: list[str]) -> bool:
    """Say that the states that SGLang sets aside leave no room, where the weights alone would leave some."""
    size = state_bytes_per_sequence(pool.model, pool.tensor_parallel)
    if pool.engine.scheduler != "sglang" or not size:
        return False
    room = capacity.usable_bytes - capacity.weight_bytes - capacity.reserved_bytes - capacity.window_bytes
    fits = capacity.state_slots and (capacity.given or capacity.blocks >= 1)
    if fits or (room <= 0 and not capacity.given):  # or the weights are too large
        return False
    slots, left = capacity.state_slots, bytes_to_gb(max(0.0, room))
    if slots or pool.mamba_full_memory_ratio is None:
        slots = max(1, slots)
        who = f"{slots:,} sequence{'s' if slots > 1 else ''} take"
        setting, aside, expected = "max_num_seqs", f"the states of {who}", "fewer sequences, or more devices"
    else:
        slots, setting, expected = 1, "mamba_full_memory_ratio", "a larger one, or more devices"
        aside = (
            f"{shown(pool.mamba_full_memory_ratio)} leaves no room for the state of one sequence, which takes"
        )
    taken = bytes_to_gb(slots * size)
    problems.append(
        f"{key}.{setting}: {aside} {taken:,.{1 if taken >= 1 else 3}f} GB on each device, and weights leave "
        f"{left:,.1f} GB for them and for KV; expected {expected}"
    )
    return True


def _tokens_of_small_blocks(pool: LLMPool) -> int:
    """Return the tokens of KV that fit in blocks of one token; 0 where the blocks are not large."""
    small = replace(pool, block_size=1)
    return max(0, kv_capacity(small).blocks) if pool.block_size > 1 else 0


def _what_fits(pool: LLMPool, key: str) -> str:
    """Return the settings, or the overrides with the fewest devices, that leave room for KV, else to quantize."""
    for names, limits in (
        (("max_num_batched_tokens",), (_STEP_TOKENS,)),
        (("max_num_seqs",), (_SEATS,)),
        (("max_num_batched_tokens", "max_num_seqs"), (_STEP_TOKENS, _SEATS)),
    ):
        lower = {name: min(limit, getattr(pool, name)) for name, limit in zip(names, limits, strict=True)}
        if kv_capacity(replace(pool, **lower)).blocks >= 1:
            return f"{' '.join(f'{key}.{name}={value}' for name, value in lower.items())} leaves room"
    if pool.memory_utilization < _SHARE and kv_capacity(replace(pool, memory_utilization=_SHARE)).blocks >= 1:
        return f"{key}.memory_utilization={_SHARE:g} leaves room"
    one_rank = pool.drafter is not None or pool.batching == "static" or pool.data_parallel > 1
    for ranks in (1,) if one_rank else (1, 2, 4, 8):
        for devices in (1, 2, 4, 8):  # a node; all-reduces are measured up to 8 devices
            wider = replace(
                pool,
                tensor_parallel=max(devices, pool.tensor_parallel),
                pipeline_parallel=max(ranks, pool.pipeline_parallel),
            )
            wrong: list[str] = []
            check_heads(pool.model, wider.tensor_parallel, key, wrong)
            fits = not wrong and wider.pipeline_parallel <= pool.model.layers
            if fits and kv_capacity(wider).blocks >= 1:
                changed = [
                    f"{key}.{name}={getattr(wider, name)}"
                    for name in ("tensor_parallel", "pipeline_parallel")
                    if getattr(wider, name) != getattr(pool, name)
                ]
                return f"{' '.join(changed)} leaves room"
    return "quantize it, or take a device with more memory"
