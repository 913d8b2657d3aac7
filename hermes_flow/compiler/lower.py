"""Pass 5: pools to clients with capacities and step tables; requests that can never be served are set apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hermes_flow.batching import batching_policies
from hermes_flow.batching.packing import PackingOrder, packing_orders
from hermes_flow.batching.packing.fcfs import FirstComeFirstServed
from hermes_flow.compiler.figures import check_figures
from hermes_flow.compiler.program import LLMClientSpec, Op, Pool, SequentialClientSpec, StepCost
from hermes_flow.config.schema import Cluster, LLMPool, SequentialPool
from hermes_flow.coordinator.routing import RoutingPolicy, routing_policies
from hermes_flow.cost import CostModel, cost_models
from hermes_flow.cost.model import Deployment
from hermes_flow.errors import ConfigError
from hermes_flow.memory.capacity import KVCapacity, kv_capacity


def parse_cost(cost: dict[str, Any], problems: list[str]) -> CostModel | None:
    """Return the cost model that ``cost`` describes, or None with its problems appended."""
    try:
        model: CostModel = cost_models.parse(cost, "cost")
    except ConfigError as error:
        problems.append(str(error))
        return None
    check_figures(model, "cost", problems)
    return model


def lower_pools(
    cluster: Cluster, model: CostModel, ops: Sequence[Op], problems: list[str]
) -> tuple[Pool, ...]:
    """Return the cluster's pools as the simulator sees them; problems are appended, their pools left out."""
    pools = []
    for index, (name, pool) in enumerate(cluster.pools.items()):
        key = f"cluster.pools.{name}.routing" if pool.routing else "cluster.routing"
        routing = routing_policies.parse(pool.routing or cluster.routing, key)
        if isinstance(pool, SequentialPool):
            pools.append(_sequential(name, pool, routing))
            continue
        longest = max((_longest(op) for op in ops if op.pool == index and op.prompt is not None), default=1)
        try:
            pools.append(_llm(name, pool, routing, model, longest))
        except ConfigError as error:
            problems.append(str(error))
    return tuple(pools)


def unservable(ops: Sequence[Op], pools: Sequence[Pool], cluster: Cluster) -> dict[int, str]:
    """Return the requests that no client of their pool can ever hold, each with the reason."""
    rejected: dict[int, str] = {}
    for op in ops:
        pool = pools[op.pool]
        if op.prompt is None or op.output is None or not isinstance(pool.client, LLMClientSpec):
            continue
        spec = cluster.pools[pool.name]
        assert isinstance(spec, LLMPool)
        total = op.prompt + op.output
        reserved = spec.preemption == "none" or spec.batching == "static"
        limits = (
            (spec.model.max_context, total, f"longer than the context of {spec.model.name}"),
            (
                pool.client.kv_blocks * pool.client.block_size,
                total if reserved else total - 1,  # the last token is never computed
                f"larger than the KV cache of {pool.name}",
            ),
        )
        for limit, tokens, reason in limits:
            too_long = tokens > limit
            if op.taken is not None:
                too_long &= op.taken
            for request in np.flatnonzero(too_long).tolist():
                rejected.setdefault(request, f"{reason} ({limit:,} tokens)")
    return rejected


def _longest(op: Op) -> int:
    assert op.prompt is not None
    assert op.output is not None
    return int((op.prompt + op.output).max(initial=1))


def _sequential(name: str, pool: SequentialPool, routing: RoutingPolicy) -> Pool:
    cores = pool.cores or pool.hardware.cores or 1
    return Pool(
        name=name,
        hardware=pool.hardware.name,
        count=pool.count,
        routing=routing,
        client=SequentialClientSpec(cores),
        usd_per_hour=pool.hardware.usd_per_hour,
        notes=(f"{cores} cores, first come first served",),
    )


def _llm(name: str, pool: LLMPool, routing: RoutingPolicy, model: CostModel, longest: int) -> Pool:
    whole_prompts = getattr(batching_policies.find(pool.batching, "batching"), "whole_prompts", False)
    capacity = kv_capacity(pool)
    max_tokens = pool.max_num_batched_tokens
    if whole_prompts:
        longest = min(longest, pool.model.max_context, max(1, capacity.blocks) * pool.block_size)
        max_tokens = max(max_tokens, longest) + pool.max_num_seqs
    cost = _step_cost(
        model,
        Deployment(
            key=f"cluster.pools.{name}",
            model=pool.model,
            hardware=pool.hardware,
            tensor_parallel=pool.tensor_parallel,
            max_tokens=max_tokens,
            max_sequences=pool.max_num_seqs,
        ),
    )
    packing = packing_orders.parse(pool.packing, f"cluster.pools.{name}.packing")
    in_order = isinstance(packing, FirstComeFirstServed)
    devices = pool.tensor_parallel * pool.pipeline_parallel
    price = pool.hardware.usd_per_hour
    return Pool(
        name=name,
        hardware=pool.hardware.name,
        count=pool.count,
        routing=routing,
        client=LLMClientSpec(
            model=pool.model.name,
            devices=devices,
            kv_blocks=capacity.blocks,
            block_size=pool.block_size,
            max_num_seqs=pool.max_num_seqs,
            max_num_batched_tokens=pool.max_num_batched_tokens,
            batching=pool.batching,
            lookahead=pool.lookahead,
            cost=cost,
            packing=None if in_order else packing,
            preemption=pool.preemption,
            swap_ps_per_block=_swap_ps_per_block(name, pool, capacity),
            prefix_cache=pool.prefix_cache,
        ),
        usd_per_hour=None if price is None else price * devices,
        notes=(
            f"{pool.batching} batching, look-ahead {pool.lookahead}, at most {pool.max_num_seqs} sequences and "
            f"{pool.max_num_batched_tokens:,} tokens a step",
            *_order_notes(packing, pool),
            _capacity_note(pool, capacity),
            _speed_note(cost, pool),
            *cost.provenance,
        ),
    )


def _step_cost(model: CostModel, deployment: Deployment) -> StepCost:
    try:
        with np.errstate(invalid="raise", over="raise"):
            return model.lower(deployment)
    except (FloatingPointError, OverflowError):
        raise ConfigError(
            deployment.key, "a step would take longer than 106 days; check the figures of hardware and cost"
        ) from None


def _swap_ps_per_block(name: str, pool: LLMPool, capacity: KVCapacity) -> int:
    """Picoseconds to copy one block's share of every device over its host link, all devices at once."""
    if pool.preemption != "swap":
        return 0
    link = pool.hardware.host_link_gb_s
    if link is None:
        raise ConfigError(
            f"cluster.pools.{name}.hardware.host_link_gb_s", "null; preemption by swapping needs it"
        )
    return max(1, round(capacity.block_bytes / (link * 1e9) * 1e12))


def _order_notes(packing: PackingOrder, pool: LLMPool) -> list[str]:
    notes = []
    if not isinstance(packing, FirstComeFirstServed):
        oracle = "; an oracle: it reads true output lengths" if packing.oracle else ""
        notes.append(f"packing {packing}{oracle}")
    if pool.preemption != "recompute":
        notes.append({"swap": "preemption by swapping", "none": "whole sequences reserved"}[pool.preemption])
    if pool.prefix_cache:
        notes.append("prefix cache on")
    return notes


def _capacity_note(pool: LLMPool, capacity: KVCapacity) -> str:
    tokens = (
        f"KV {capacity.blocks:,} blocks of {pool.block_size} = {capacity.blocks * pool.block_size:,} tokens"
    )
    if capacity.given:
        return f"{tokens} (given by kv_blocks)"
    return (
        f"{tokens}: {pool.memory_utilization:g} of memory is {capacity.usable_bytes / 1e9:.1f} GB a device, less "
        f"{capacity.weight_bytes / 1e9:.1f} GB of weights and {capacity.reserved_bytes / 1e9:.1f} GB reserved"
    )


def _speed_note(cost: StepCost, pool: LLMPool) -> str:
    chunk = min(1024, pool.max_num_batched_tokens)
    batch = min(32, pool.max_num_seqs)
    one, many = cost.step_ps([], 1, 1024), cost.step_ps([], batch, batch * 1024)
    prompt = cost.step_ps([(chunk, 0)], 0, 0)
    return (
        f"a step of 1 decode {one / 1e9:.2f} ms, of {batch} {many / 1e9:.2f} ms (each over 1,024 tokens); "
        f"of a {chunk:,}-token prompt {prompt / 1e9:.2f} ms"
    )
