"""Lowers an LLM pool: its capacity, its cost tables, and notes on the origin of both."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hermes_flow.config.convert import shown
from hermes_flow.config.mixer_shape import state_layers
from hermes_flow.config.plugin_faults import plugin_fault
from hermes_flow.config.schema import Hardware, Network
from hermes_flow.config.shape import pipeline_ranks
from hermes_flow.config.speculative import DEFAULT_ACCEPTANCE
from hermes_flow.cost import CostModel
from hermes_flow.cost.across_nodes import NodeLinks
from hermes_flow.cost.draft_model import expected_tokens
from hermes_flow.cost.energy import power_notes, step_energy
from hermes_flow.cost.kv import windowed_kv_bytes_per_token
from hermes_flow.cost.model import Deployment, Hop
from hermes_flow.errors import ConfigError
from hermes_flow.pools.kind import Handovers
from hermes_flow.pools.llm.batching import batching_policies, exceeds_budget, plans_gangs, policy_name
from hermes_flow.pools.llm.by_priority.settings import by_priority
from hermes_flow.pools.llm.capacity import KVCapacity
from hermes_flow.pools.llm.evidence import evidence_of
from hermes_flow.pools.llm.held_contexts import held_notes, holds_contexts
from hermes_flow.pools.llm.offload.lower import offload_notes, offload_spec
from hermes_flow.pools.llm.packing import PackingOrder, packing_orders
from hermes_flow.pools.llm.packing.fcfs import FirstComeFirstServed
from hermes_flow.pools.llm.scheduler import BatchingPolicy
from hermes_flow.pools.llm.schema import LLMPool
from hermes_flow.pools.llm.server_limits import server_seats
from hermes_flow.pools.llm.sglang.settings import (
    longest_step,
    sglang_note,
    sglang_settings,
    side_notes,
    uses_sglang,
)
from hermes_flow.pools.llm.tensorrt_llm.settings import tensorrt_note, tensorrt_settings, uses_tensorrt_llm
from hermes_flow.program.pools import AdapterSpec, LLMClientSpec, Pool
from hermes_flow.program.power import StepEnergy
from hermes_flow.program.step_cost import StepCost
from hermes_flow.program.units import PS_PER_MS, PS_PER_S, PS_PER_US, bytes_to_gb, gb_to_bytes
from hermes_flow.routing import RoutingPolicy

_SMALL_PART = gb_to_bytes(0.05)


def lower_llm(
    name: str,
    pool: LLMPool,
    routing: RoutingPolicy,
    model: CostModel,
    capacity: KVCapacity,
    longest: int,
    handovers: Handovers,
    network: Network | None = None,
    adapters_asked: tuple[str, ...] = (),
) -> Pool:
    """Return the pool called ``name``, whose longest sequence has ``longest`` tokens, on nodes of ``network``.

    Requests ask for the adapters ``adapters_asked``.

    Raises ConfigError where a figure that it needs is missing.
    """
    deployment = _deployment(name, pool, capacity, longest)
    if network is not None:
        deployment = replace(deployment, nodes=NodeLinks.of(network, pool.hardware))
    cost = _step_cost(model, deployment)
    upstream, hop = None, Hop()
    if pool.pipeline_parallel > 1:
        upstream = _step_cost(model, replace(deployment, part="upstream"))
        hop = model.hop(deployment)
    policy = batching_policies.parse(pool.batching, f"cluster.pools.{name}.batching")
    sglang = sglang_settings(pool, handovers, capacity.state_slots) if uses_sglang(pool) else None
    _check_replay(name, pool, cost)
    _check_ranks_apart(name, pool, handovers)
    packing: PackingOrder = FirstComeFirstServed()
    if sglang is None:
        packing = packing_orders.parse(pool.packing, f"cluster.pools.{name}.packing")
    in_order = isinstance(packing, FirstComeFirstServed)
    energy = step_energy(deployment, cost, upstream) if getattr(model, "of_hardware", True) else None
    price = pool.hardware.usd_per_hour
    adapters = _adapters(name, pool, model, cost, handovers, adapters_asked)
    client = LLMClientSpec(
        model=pool.model.name,
        devices=pool.devices,
        kv_blocks=capacity.blocks,
        block_size=pool.block_size,
        max_num_seqs=min(pool.max_num_seqs, capacity.state_slots or pool.max_num_seqs),
        max_num_batched_tokens=pool.max_num_batched_tokens,
        batching=policy_name(pool.batching),
        lookahead=pool.lookahead,
        cost=cost,
        policy=policy,
        packing=None if in_order else packing,
        preemption=pool.preemption,
        swap_ps_per_block=_swap_ps_per_block(name, pool, capacity),
        prefix_cache=bool(pool.prefix_cache),
        attention_ranks=pool.data_parallel,
        rank_routing=_rank_routing(pool),
        pipeline_ranks=pool.pipeline_parallel,
        upstream=upstream,
        hop_ps_per_token=hop.ps_per_token,
        hop_ps=hop.ps,
        speculation=_speculation(pool),
        sglang=sglang,
        tensorrt_llm=tensorrt_settings(pool, handovers) if uses_tensorrt_llm(pool) else None,
        kv_layers=pool.model.layers if handovers.early else 0,
        kv_export_ps=handovers.handover_ps if handovers.sends else 0,
        kv_import_ps=handovers.handover_ps if handovers.receives else 0,
        sequence_blocks=capacity.sequence_blocks,
        longest_chunk=pool.long_prefill_token_threshold,
        by_priority=by_priority(pool),
        server_seats=server_seats(pool),
        holds_contexts=holds_contexts(pool),
        adapters=adapters,
        offload=offload_spec(pool, capacity),
    )
    return Pool(
        name=name,
        hardware=pool.hardware.name,
        count=pool.count,
        routing=routing,
        client=client,
        usd_per_hour=None if price is None else price * pool.devices,
        notes=(
            _scheduler_note(pool, policy, client.max_num_seqs),
            *_order_notes(packing, pool),
            *held_notes(pool),
            *_parallel_notes(pool),
            *_speculation_notes(pool),
            _capacity_note(pool, capacity),
            *offload_notes(client.offload, pool.block_size, along=sglang is not None),
            _speed_note(client),
            *(f"model {pool.model.name}: {note}" for note in pool.model.notes),
            *cost.provenance,
            *hop.provenance,
            *_engine_notes(pool),
            *_power_notes(pool, model, energy),
            *_handover_notes(handovers),
            *([] if sglang is None else side_notes(sglang)),
            *_adapter_notes(pool, adapters),
        ),
        energy=energy,
        evidence=evidence_of(pool, model),
    )


def _check_ranks_apart(name: str, pool: LLMPool, handovers: Handovers) -> None:
    """Raise ConfigError where KV moves between ranks of an engine for which this is not modelled."""
    if pool.data_parallel > 1 and handovers.moves and pool.engine.scheduler != "vllm":
        raise ConfigError(
            f"cluster.pools.{name}.data_parallel",
            f"{pool.data_parallel}, but KV moves between this pool and another, which is not modelled for ranks of "
            f"engine {pool.engine.name}; expected 1, or engine=vllm",
        )


def _adapters(
    name: str,
    pool: LLMPool,
    model: CostModel,
    cost: StepCost,
    handovers: Handovers,
    asked: tuple[str, ...],
) -> AdapterSpec | None:
    """Return the places of adapters; raises ConfigError where they cannot be served."""
    if pool.adapters is None:
        return None
    from hermes_flow.pools.llm.adapters import lower_adapters

    key = f"cluster.pools.{name}.adapters"
    if handovers.moves:
        raise ConfigError(key, "KV moves between this pool and another, which is not modelled with adapters")
    if cost.replayed_ps:
        raise ConfigError(
            key, "cost=replay has the steps as they were recorded, with whatever adapters they had"
        )
    return lower_adapters(name, pool, model, len(cost.tokens_ps) - 1, asked)


def _adapter_notes(pool: LLMPool, adapters: AdapterSpec | None) -> list[str]:
    if adapters is None:
        return []
    from hermes_flow.pools.llm.adapters import adapter_notes

    return adapter_notes(pool, adapters)


def _check_replay(name: str, pool: LLMPool, cost: StepCost) -> None:
    """Raise ConfigError where recorded steps, or a speed that drifts, are no steps of this client's scheduler."""
    if not cost.replayed_ps and not cost.drift:
        return
    what = "cost=replay" if cost.replayed_ps else "cost.drift_s"
    if pool.engine.scheduler != "vllm":
        raise ConfigError(
            "engine",
            f"{pool.engine.name}, and {what} follows vLLM's scheduler only; expected engine=vllm",
        )
    if by_priority(pool):
        raise ConfigError(
            f"cluster.pools.{name}.scheduling_policy",
            "priority, and cost=replay follows vLLM's scheduler in order of arrival; expected fcfs",
        )
    if plans_gangs(pool.batching):
        raise ConfigError(
            f"cluster.pools.{name}.batching",
            f"{policy_name(pool.batching)} plans whole gangs, and {what} has single steps; expected another",
        )
    if cost.drift:
        return
    if len(cost.replayed_ps) < pool.count:
        raise ConfigError(
            f"cluster.pools.{name}.count",
            f"{pool.count}, but cost.path has the steps of {len(cost.replayed_ps)}; expected no more, or a "
            "table with the column client",
        )


def _scheduler_note(pool: LLMPool, policy: BatchingPolicy, seats: int) -> str:
    if uses_sglang(pool):
        return sglang_note(pool, seats)
    return tensorrt_note(pool) if uses_tensorrt_llm(pool) else _batching_note(pool, policy)


def _handover_notes(handovers: Handovers) -> list[str]:
    notes = []
    if handovers.receives and handovers.first_tokens:
        notes.append("emits first tokens: computes the last token of each prompt itself")
    if handovers.handover_ps and handovers.moves:
        notes.append(f"{handovers.handover_ps / PS_PER_US:,g} µs for handing over a prompt's KV")
    return notes


def _deployment(name: str, pool: LLMPool, capacity: KVCapacity, longest: int) -> Deployment:
    """What the pool's clients run on, with room in the tables for every step that its batching may plan."""
    deployment = Deployment(
        key=f"cluster.pools.{name}",
        model=pool.model,
        hardware=_planning(pool),
        tensor_parallel=pool.tensor_parallel,
        max_tokens=pool.max_num_batched_tokens,
        max_sequences=pool.max_num_seqs,
        pipeline_parallel=pool.pipeline_parallel,
        data_parallel=pool.data_parallel,
        expert_parallel=pool.expert_parallel,
        speculative=replace(pool.speculative, draft=pool.drafter),
    )
    if uses_sglang(pool):
        return replace(deployment, max_tokens=longest_step(pool, longest))
    if not exceeds_budget(pool.batching):
        return deployment
    longest = min(longest, pool.model.max_context, max(1, capacity.blocks) * pool.block_size)
    decodes = pool.max_num_seqs * deployment.tokens_per_decode
    return replace(deployment, max_tokens=max(deployment.max_tokens, longest) + decodes)


def _planning(pool: LLMPool) -> Hardware:
    """Return the hardware with the time of planning in each step, where no look-ahead hides it."""
    engine = pool.hardware.engine
    if engine is None or not engine.plan_us or pool.lookahead or pool.pipeline_parallel > 1:
        return pool.hardware
    return replace(pool.hardware, engine=replace(engine, step_us=engine.step_us + engine.plan_us))


def _step_cost(model: CostModel, deployment: Deployment) -> StepCost:
    try:
        with np.errstate(invalid="raise", over="raise"):
            return model.lower(deployment)
    except (FloatingPointError, OverflowError) as error:
        if plugin_fault(error) is not None:
            raise
        raise ConfigError(
            deployment.key, "a step would take longer than 106 days; check the figures of hardware and cost"
        ) from None


def _speculation(pool: LLMPool) -> tuple[int, int] | None:
    if pool.drafter is None:
        return None
    return expected_tokens(pool.speculative).as_integer_ratio()


def _swap_ps_per_block(name: str, pool: LLMPool, capacity: KVCapacity) -> int:
    """Picoseconds to copy one block's share of every device over its host link, all devices at once.

    The KV of layers with a sliding window is copied for the whole context.
    """
    if pool.preemption != "swap":
        return 0
    link = pool.hardware.host_link_gb_s
    if link is None:
        raise ConfigError(
            f"cluster.pools.{name}.hardware.host_link_gb_s", "null; preemption by swapping needs it"
        )
    size = capacity.block_bytes
    if capacity.window_bytes:
        layers = max(rank.layers for rank in pipeline_ranks(pool.model, pool.pipeline_parallel))
        size += pool.block_size * windowed_kv_bytes_per_token(pool.model, pool.tensor_parallel, layers)
    return max(1, round(size / gb_to_bytes(link) * PS_PER_S))


def _batching_note(pool: LLMPool, policy: BatchingPolicy) -> str:
    """How steps are filled. Pipeline ranks plan a step when its micro-batch is out, whatever the look-ahead."""
    ahead = f"look-ahead {pool.lookahead}, " if pool.pipeline_parallel == 1 else ""
    longest = pool.long_prefill_token_threshold
    limit = f", at most {longest:,} of them of one prompt" if longest else ""
    each = ", on each rank" if pool.data_parallel > 1 else ""
    return (
        f"{batching_policies.describe(policy)} batching, {ahead}at most {pool.max_num_seqs} sequences and "
        f"{pool.max_num_batched_tokens:,} tokens a step{limit}{each}"
    )


def _engine_notes(pool: LLMPool) -> list[str]:
    """Return which keys have their values from the engine, as a configuration would give them."""
    if not pool.from_engine:
        return []
    values = ", ".join(f"{key}={_as_given(getattr(pool, key))}" for key in pool.from_engine)
    return [f"defaults of engine {pool.engine.name}: {values}"]


def _as_given(value: object) -> str:
    """Return a value as it stands in a configuration."""
    return shown(value) if value is None or isinstance(value, bool) else str(value)


def _order_notes(packing: PackingOrder, pool: LLMPool) -> list[str]:
    notes = []
    if by_priority(pool):
        notes.append("urgent requests first, and preempted last (scheduling_policy: priority)")
    if not isinstance(packing, FirstComeFirstServed):
        oracle = "; an oracle: it reads true output lengths" if packing.oracle else ""
        notes.append(f"packing {packing}{oracle}")
    if pool.preemption != "recompute":
        notes.append({"swap": "preemption by swapping", "none": "whole sequences reserved"}[pool.preemption])
    return notes


def _parallel_notes(pool: LLMPool) -> list[str]:
    """How the model lies on the devices, where that is more than tensor parallelism."""
    if not (pool.pipeline_parallel > 1 or pool.data_parallel > 1 or pool.expert_parallel):
        return []
    parts = [f"tensor parallel {pool.tensor_parallel}"]
    if pool.pipeline_parallel > 1:
        layers = " + ".join(str(rank.layers) for rank in pipeline_ranks(pool.model, pool.pipeline_parallel))
        parts.append(f"pipeline parallel {pool.pipeline_parallel} ({layers} layers)")
    if pool.data_parallel > 1:
        routing = _rank_routing(pool).replace("_", " ")
        parts.append(f"data-parallel attention on {pool.data_parallel} ranks, in lockstep ({routing})")
    if pool.expert_parallel:
        parts.append("expert parallel")
    return [", ".join(parts)]


def _rank_routing(pool: LLMPool) -> str:
    """Return the rule by which ranks get their requests; that of TensorRT-LLM's shared queue is fixed."""
    rules = {"sglang": "round_robin", "tensorrt_llm": "shared_queue"}
    return pool.rank_routing or rules.get(pool.engine.scheduler, "least_requests")


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


def _power_notes(pool: LLMPool, model: CostModel, energy: StepEnergy | None) -> tuple[str, ...]:
    if not getattr(model, "of_hardware", True):
        return ("power: not known; this cost model is not of any hardware",)
    return power_notes(pool.hardware, energy)


def _speed_note(client: LLMClientSpec) -> str:
    chunk = min(1024, client.max_num_batched_tokens, len(client.cost.tokens_ps) - 1)
    batch = min(32, client.max_num_seqs)
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
