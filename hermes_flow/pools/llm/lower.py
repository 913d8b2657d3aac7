"""Lowers an LLM pool: its capacity and its cost tables."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hermes_flow.config.plugin_faults import plugin_fault
from hermes_flow.config.remembered import first_made
from hermes_flow.config.schema import Hardware
from hermes_flow.config.shape import pipeline_ranks
from hermes_flow.cost import CostModel
from hermes_flow.cost.across_nodes import NodeLinks
from hermes_flow.cost.draft_model import expected_tokens
from hermes_flow.cost.energy import step_energy
from hermes_flow.cost.kv import windowed_kv_bytes_per_token
from hermes_flow.cost.model import Deployment, Hop
from hermes_flow.errors import ConfigError
from hermes_flow.pools.kind import Handovers, Lowering
from hermes_flow.pools.llm.batching import batching_policies, exceeds_budget, plans_gangs, policy_name
from hermes_flow.pools.llm.by_priority.settings import by_priority
from hermes_flow.pools.llm.capacity import KVCapacity
from hermes_flow.pools.llm.evidence import evidence_of
from hermes_flow.pools.llm.held_contexts import holds_contexts
from hermes_flow.pools.llm.notes import pool_notes
from hermes_flow.pools.llm.offload.lower import offload_spec
from hermes_flow.pools.llm.packing import PackingOrder, packing_orders
from hermes_flow.pools.llm.packing.fcfs import FirstComeFirstServed
from hermes_flow.pools.llm.rank_routing import rank_routing
from hermes_flow.pools.llm.schema import LLMPool
from hermes_flow.pools.llm.server_limits import server_seats
from hermes_flow.pools.llm.sglang.settings import longest_step, sglang_settings, uses_sglang
from hermes_flow.pools.llm.tensorrt_llm.settings import tensorrt_settings, uses_tensorrt_llm
from hermes_flow.program.pools import AdapterSpec, LLMClientSpec, Pool
from hermes_flow.program.power import StepEnergy
from hermes_flow.program.step_cost import StepCost
from hermes_flow.program.units import PS_PER_S, gb_to_bytes
from hermes_flow.routing import RoutingPolicy


@dataclass(frozen=True, slots=True)
class _StepTimes:
    """What the steps of a client cost: ``last`` on its only or last pipeline rank, ``upstream`` on those before it.

    ``hop`` is what a step costs from one pipeline rank to the next.
    """

    last: StepCost
    upstream: StepCost | None
    hop: Hop


def lower_llm(
    name: str, pool: LLMPool, routing: RoutingPolicy, capacity: KVCapacity, longest: int, lowering: Lowering
) -> Pool:
    """Return the pool called ``name``, whose longest sequence has ``longest`` tokens.

    Raises ConfigError where a figure that it needs is missing.
    """
    model, handovers = lowering.costs[name], lowering.handovers[name]
    deployment = _deployment(name, pool, capacity, longest)
    deployment = replace(deployment, nodes=NodeLinks.of(lowering.network, pool.hardware))
    steps, energy = _kept_times(model, deployment)
    _check_replay(name, pool, steps.last)
    price = pool.hardware.usd_per_hour
    adapters = _adapters(name, pool, model, steps.last, handovers, lowering.requests.adapters)
    client = _client(name, pool, capacity, handovers, steps, adapters, lowering.seed)
    return Pool(
        name=name,
        hardware=pool.hardware.name,
        count=pool.count,
        routing=routing,
        client=client,
        usd_per_hour=None if price is None else price * pool.devices,
        notes=pool_notes(pool, client, capacity, model, energy, handovers, steps.hop),
        energy=energy,
        evidence=evidence_of(pool, model),
    )


def _kept_times(model: CostModel, deployment: Deployment) -> tuple[_StepTimes, StepEnergy | None]:
    """Return what steps cost and the energy that they take; made once for equal ones of a model of ours."""
    if not type(model).__module__.startswith("hermes_flow."):
        return _times_and_energy(model, deployment)
    return first_made(
        f"steps of {deployment.key}", (model, deployment), lambda: _times_and_energy(model, deployment)
    )


def _times_and_energy(model: CostModel, deployment: Deployment) -> tuple[_StepTimes, StepEnergy | None]:
    steps = _step_times(model, deployment)
    if not getattr(model, "of_hardware", True):
        return steps, None
    return steps, step_energy(deployment, steps.last, steps.upstream)


def _step_times(model: CostModel, deployment: Deployment) -> _StepTimes:
    cost = _step_cost(model, deployment)
    if deployment.pipeline_parallel == 1:
        return _StepTimes(cost, None, Hop())
    return _StepTimes(cost, _step_cost(model, replace(deployment, part="upstream")), model.hop(deployment))


def _client(
    name: str,
    pool: LLMPool,
    capacity: KVCapacity,
    handovers: Handovers,
    steps: _StepTimes,
    adapters: AdapterSpec | None,
    seed: int,
) -> LLMClientSpec:
    """Return what a client of the pool is; ``seed`` is that of what is drawn as requests are served."""
    policy = batching_policies.parse(pool.batching, f"cluster.pools.{name}.batching")
    sglang = sglang_settings(pool, handovers, capacity.state_slots, seed, name) if uses_sglang(pool) else None
    packing: PackingOrder = FirstComeFirstServed()
    if sglang is None:
        packing = packing_orders.parse(pool.packing, f"cluster.pools.{name}.packing")
    return LLMClientSpec(
        model=pool.model.name,
        devices=pool.devices,
        kv_blocks=capacity.blocks,
        block_size=pool.block_size,
        max_num_seqs=min(pool.max_num_seqs, capacity.state_slots or pool.max_num_seqs),
        max_num_batched_tokens=pool.max_num_batched_tokens,
        batching=policy_name(pool.batching),
        lookahead=pool.lookahead,
        cost=steps.last,
        policy=policy,
        packing=None if isinstance(packing, FirstComeFirstServed) else packing,
        preemption=pool.preemption,
        swap_ps_per_block=_swap_ps_per_block(name, pool, capacity),
        prefix_cache=bool(pool.prefix_cache),
        attention_ranks=pool.data_parallel,
        rank_routing=rank_routing(name, pool, handovers),
        pipeline_ranks=pool.pipeline_parallel,
        upstream=steps.upstream,
        hop_ps_per_token=steps.hop.ps_per_token,
        hop_ps=steps.hop.ps,
        speculation=_speculation(pool),
        sglang=sglang,
        tensorrt_llm=tensorrt_settings(pool, handovers, name) if uses_tensorrt_llm(pool) else None,
        kv_layers=pool.model.layers if handovers.early else 0,
        kv_export_ps=handovers.handover_ps if handovers.sends else 0,
        kv_import_ps=handovers.handover_ps if handovers.receives else 0,
        polls_kv=handovers.polled and handovers.receives,
        sequence_blocks=capacity.sequence_blocks,
        longest_chunk=pool.long_prefill_token_threshold,
        by_priority=by_priority(pool),
        server_seats=server_seats(pool),
        holds_contexts=holds_contexts(pool),
        adapters=adapters,
        offload=offload_spec(pool, capacity),
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
        all2all=pool.all2all_backend,
        redundant_experts=pool.redundant_experts,
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
