"""Says in words what an LLM pool is made of, and where its capacity and its times come from."""

from __future__ import annotations

from typing import cast

from hermes_flow.config.convert import shown
from hermes_flow.config.mixer_shape import state_layers
from hermes_flow.config.shape import pipeline_ranks
from hermes_flow.config.speculative import DEFAULT_ACCEPTANCE
from hermes_flow.cost import CostModel
from hermes_flow.cost.draft_model import expected_tokens
from hermes_flow.cost.energy import power_notes
from hermes_flow.cost.model import Hop
from hermes_flow.pools.kind import Handovers
from hermes_flow.pools.llm.batching import batching_policies
from hermes_flow.pools.llm.by_priority.settings import by_priority
from hermes_flow.pools.llm.capacity import KVCapacity
from hermes_flow.pools.llm.held_contexts import held_notes
from hermes_flow.pools.llm.offload.lower import offload_notes
from hermes_flow.pools.llm.scheduler import BatchingPolicy
from hermes_flow.pools.llm.schema import LLMPool
from hermes_flow.pools.llm.sglang.settings import sglang_note, side_notes, uses_sglang
from hermes_flow.pools.llm.tensorrt_llm.settings import tensorrt_note, uses_tensorrt_llm
from hermes_flow.program.pools import AdapterSpec, LLMClientSpec
from hermes_flow.program.power import StepEnergy
from hermes_flow.program.units import PS_PER_MS, PS_PER_US, bytes_to_gb, gb_to_bytes

_SMALL_PART = gb_to_bytes(0.05)


def pool_notes(
    pool: LLMPool,
    client: LLMClientSpec,
    capacity: KVCapacity,
    model: CostModel,
    energy: StepEnergy | None,
    handovers: Handovers,
    hop: Hop,
) -> tuple[str, ...]:
    """Return the notes on a lowered pool, a line each: its scheduler, its memory, its times, its power."""
    return (
        _scheduler_note(pool, client),
        *_order_notes(pool, client),
        *held_notes(pool),
        *_parallel_notes(pool, client),
        *_speculation_notes(pool),
        _capacity_note(pool, capacity),
        *offload_notes(client.offload, pool.block_size, along=client.sglang is not None),
        _speed_note(client),
        *(f"model {pool.model.name}: {note}" for note in pool.model.notes),
        *client.cost.provenance,
        *hop.provenance,
        *_engine_notes(pool),
        *_power_notes(pool, model, energy),
        *_handover_notes(pool, handovers),
        *([] if client.sglang is None else side_notes(client.sglang)),
        *_adapter_notes(pool, client.adapters),
    )


def _scheduler_note(pool: LLMPool, client: LLMClientSpec) -> str:
    if uses_sglang(pool):
        return sglang_note(pool, client.max_num_seqs)
    return tensorrt_note(pool) if uses_tensorrt_llm(pool) else _batching_note(pool, client)


def _batching_note(pool: LLMPool, client: LLMClientSpec) -> str:
    """How steps are filled. Pipeline ranks plan a step when its micro-batch is out, whatever the look-ahead."""
    ahead = f"look-ahead {pool.lookahead}, " if pool.pipeline_parallel == 1 else ""
    longest = pool.long_prefill_token_threshold
    limit = f", at most {longest:,} of them of one prompt" if longest else ""
    each = ", on each rank" if pool.data_parallel > 1 else ""
    policy = cast(BatchingPolicy, client.policy)
    return (
        f"{batching_policies.describe(policy)} batching, {ahead}at most {pool.max_num_seqs} sequences and "
        f"{pool.max_num_batched_tokens:,} tokens a step{limit}{each}"
    )


def _order_notes(pool: LLMPool, client: LLMClientSpec) -> list[str]:
    notes, packing = [], client.packing
    if by_priority(pool):
        notes.append("urgent requests first, and preempted last (scheduling_policy: priority)")
    if packing is not None:
        oracle = "; an oracle: it reads true output lengths" if packing.oracle else ""
        notes.append(f"packing {packing}{oracle}")
    if pool.preemption != "recompute":
        notes.append({"swap": "preemption by swapping", "none": "whole sequences reserved"}[pool.preemption])
    return notes


def _parallel_notes(pool: LLMPool, client: LLMClientSpec) -> list[str]:
    """How the model lies on the devices, where that is more than tensor parallelism."""
    if not (pool.pipeline_parallel > 1 or pool.data_parallel > 1 or pool.expert_parallel):
        return []
    parts = [f"tensor parallel {pool.tensor_parallel}"]
    if pool.pipeline_parallel > 1:
        layers = " + ".join(str(rank.layers) for rank in pipeline_ranks(pool.model, pool.pipeline_parallel))
        parts.append(f"pipeline parallel {pool.pipeline_parallel} ({layers} layers)")
    if pool.data_parallel > 1:
        routing = client.rank_routing.replace("_", " ")
        parts.append(f"data-parallel attention on {pool.data_parallel} ranks, in lockstep ({routing})")
    if pool.expert_parallel:
        redundant = pool.redundant_experts
        parts.append(f"expert parallel, {redundant} redundant experts" if redundant else "expert parallel")
    return [", ".join(parts)]


def _speculation_notes(pool: LLMPool) -> list[str]:
    speculative, drafter = pool.speculative, pool.drafter
    if drafter is None:
        return []
    expected = float(expected_tokens(speculative))
    if speculative.acceptance_length is not None:
        how = f"acceptance length {expected:g}"
    elif speculative.acceptance_by_position:
        shares = ", ".join(f"{share:g}" for share in speculative.acceptance_by_position)
        how = f"accepted by position {shares}: {expected:.2f} tokens a step expected"
    else:
        each = DEFAULT_ACCEPTANCE if speculative.acceptance is None else speculative.acceptance
        how = f"each accepted with probability {each:g}: {expected:.2f} tokens a step expected"
    return [f"speculation: {drafter.name} drafts {speculative.tokens} tokens a step, {how}"]


def _capacity_note(pool: LLMPool, capacity: KVCapacity) -> str:
    tokens = (
        f"KV {capacity.blocks:,} blocks of {pool.block_size} = {capacity.blocks * pool.block_size:,} tokens"
    )
    if capacity.given:
        each = f" for each of {pool.data_parallel} ranks" if pool.data_parallel > 1 else ""
        return f"{tokens} (given by kv_blocks{each})"
    if capacity.sequence_blocks:
        tokens = (
            f"KV {capacity.tokens:,} tokens in sequences of {pool.model.max_context:,} tokens, as vLLM counts "
            f"({capacity.blocks:,} blocks of {pool.block_size})"
        )
    if pool.data_parallel > 1:
        tokens += f" on {pool.data_parallel} ranks"
    draft = f" ({bytes_to_gb(capacity.draft_bytes):.1f} GB the draft's)" if capacity.draft_bytes else ""
    rank = " on the pipeline rank with least room" if pool.pipeline_parallel > 1 else ""
    windows = ""
    if capacity.window_bytes:
        kept = bytes_to_gb(capacity.window_bytes)
        windows = f" and {kept:.1f} GB for sliding windows"
    states = ""
    if capacity.sequence_blocks:
        what = "states" if state_layers(pool.model) else "windows"
        states = f"; every sequence takes {capacity.sequence_blocks:,} blocks more for its {what}"
    if capacity.state_slots:
        kept = bytes_to_gb(capacity.state_bytes)
        windows += f" and {kept:.1f} GB for the states of {capacity.state_slots:,} sequences"
    return (
        f"{tokens}: {pool.memory_utilization:g} of memory is {bytes_to_gb(capacity.usable_bytes):.1f} GB a device, "
        f"less {bytes_to_gb(capacity.weight_bytes):.1f} GB of weights{draft} and "
        f"{bytes_to_gb(capacity.reserved_bytes):.1f} GB reserved{_parts_words(capacity)}{windows}{rank}{states}"
    )


def _parts_words(capacity: KVCapacity) -> str:
    """Return the parts of the reserve that matter, where it was computed from several."""
    parts = [part for part in capacity.reserved_parts if part.bytes > _SMALL_PART]
    if len(capacity.reserved_parts) < 2:
        return ""
    return f" ({', '.join(f'{part.name} {bytes_to_gb(part.bytes):.2f}' for part in parts)})"


def _speed_note(client: LLMClientSpec) -> str:
    most = len(client.cost.tokens_ps) - 1  # tokens of a step
    chunk = min(1024, client.max_num_batched_tokens, most)
    batch = max(1, min(32, client.max_num_seqs, most // client.cost.tokens_per_decode))
    one, many = _pass_ps(client, [], 1, 1024), _pass_ps(client, [], batch, batch * 1024)
    prompt = _pass_ps(client, [(chunk, 0)], 0, 0)
    through = "" if client.pipeline_ranks == 1 else f"; through all {client.pipeline_ranks} pipeline ranks"
    return (
        f"a step of 1 decode {one / PS_PER_MS:.2f} ms, of {batch} {many / PS_PER_MS:.2f} ms (each over 1,024 "
        f"tokens); of a {chunk:,}-token prompt {prompt / PS_PER_MS:.2f} ms{through}"
    )


def _pass_ps(client: LLMClientSpec, prefills: list[tuple[int, int]], decodes: int, context: int) -> float:
    """One micro-batch through all pipeline ranks, one after another."""
    last = client.cost.step_ps(prefills, decodes, context)
    if client.upstream is None:
        return last
    tokens = decodes * client.cost.tokens_per_decode + sum(chunk for chunk, _ in prefills)
    hop = client.hop_ps + client.hop_ps_per_token * tokens
    return last + (client.pipeline_ranks - 1) * (client.upstream.step_ps(prefills, decodes, context) + hop)


def _engine_notes(pool: LLMPool) -> list[str]:
    """Return which keys have their values from the engine, as a configuration would give them."""
    if not pool.from_engine:
        return []
    values = ", ".join(f"{key}={_as_given(getattr(pool, key))}" for key in pool.from_engine)
    return [f"defaults of engine {pool.engine.name}: {values}"]


def _as_given(value: object) -> str:
    """Return a value as it stands in a configuration."""
    return shown(value) if value is None or isinstance(value, bool) else str(value)


def _power_notes(pool: LLMPool, model: CostModel, energy: StepEnergy | None) -> tuple[str, ...]:
    if not getattr(model, "of_hardware", True):
        return ("power: not known; this cost model is not of any hardware",)
    return power_notes(pool.hardware, energy)


def _handover_notes(pool: LLMPool, handovers: Handovers) -> list[str]:
    notes = []
    if handovers.receives and handovers.first_tokens:
        notes.append("emits first tokens: computes the last token of each prompt itself")
    if handovers.receives and handovers.polled:
        notes.append("looks once a step whether KV has arrived")
    if handovers.receives and pool.engine.name == "vllm":
        other = [] if handovers.first_tokens else ["cluster.first_token=decode"]
        if not handovers.polled and pool.pipeline_parallel == 1:
            other.append("cluster.kv_notice=each_step")
        if other:
            notes.append(f"not as with vLLM's proxies and connectors, for which set {' and '.join(other)}")
    if handovers.handover_ps and handovers.moves:
        notes.append(f"{handovers.handover_ps / PS_PER_US:,g} µs for handing over a prompt's KV")
    return notes


def _adapter_notes(pool: LLMPool, adapters: AdapterSpec | None) -> list[str]:
    if adapters is None:
        return []
    from hermes_flow.pools.llm.adapters import adapter_notes

    return adapter_notes(pool, adapters)
