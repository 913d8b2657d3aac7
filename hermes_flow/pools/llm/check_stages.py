"""Checks that an LLM pool can serve its stages as the pipeline and the other pools ask for it."""

from __future__ import annotations

from hermes_flow.config.mixer_shape import state_layers
from hermes_flow.config.schema import Cluster
from hermes_flow.pools.llm.batching import plans_gangs, policy_name
from hermes_flow.pools.llm.by_priority.settings import by_priority
from hermes_flow.pools.llm.check import prefix_cache_obstacle
from hermes_flow.pools.llm.offload.check import moves_blocks, offloads
from hermes_flow.pools.llm.schema import LLMPool
from hermes_flow.stages.graph import Stage


def check_prefixes(name: str, pool: LLMPool, block_tokens: int, problems: list[str]) -> None:
    """Append a problem where the workload's prefix blocks cannot be cut into the pool's blocks."""
    if not pool.prefix_cache or pool.block_size < 1:
        return
    if block_tokens % pool.block_size and pool.block_size % block_tokens:
        problems.append(
            f"cluster.pools.{name}.block_size: {pool.block_size} neither divides nor is a multiple of the "
            f"{block_tokens} tokens of the workload's prefix blocks"
        )


def check_notice(ours: str, second: LLMPool, cluster: Cluster, problems: list[str]) -> None:
    """Append a problem if pool ``ours`` cannot look once a step whether KV has arrived."""
    if cluster.kv_notice == "each_step" and second.pipeline_parallel > 1:
        problem = (
            f"cluster.kv_notice: each_step is not modelled with cluster.pools.{ours}.pipeline_parallel="
            f"{second.pipeline_parallel}, whose micro-batches begin at different times; expected at_once"
        )
        if problem not in problems:
            problems.append(problem)


def check_pair(theirs: str, first: LLMPool, ours: str, second: LLMPool, problems: list[str]) -> None:
    """Append a problem if pool ``ours`` cannot decode the prompts that pool ``theirs`` has prefilled."""
    if first.model.name != second.model.name:
        problems.append(
            f"cluster.pools.{ours}.model: {second.model.name} cannot decode what {first.model.name} on pool "
            f"{theirs!r} has prefilled; expected the same model"
        )
    elif first.model.precision.kv_cache != second.model.precision.kv_cache:
        problems.append(
            f"cluster.pools.{ours}.model.precision.kv_cache: {second.model.precision.kv_cache!r} cannot go on from "
            f"the {first.model.precision.kv_cache!r} KV of pool {theirs!r}; expected the same"
        )
    if first.engine.scheduler != second.engine.scheduler:
        problems.append(
            f"cluster.pools.{ours}.engine: {second.engine.name} cannot take over the KV of {first.engine.name} on "
            f"pool {theirs!r}; expected the same scheduler on both"
        )
    if offloads(first) and first.engine.scheduler == "sglang":
        problems.append(
            f"cluster.pools.{theirs}.offload: SGLang's host memory is not modelled on clients whose KV goes to "
            f"{ours!r}; expected no tiers"
        )
    moving = moves_blocks(second)
    if moving is not None:
        instead = "no tiers here, or those of" if offloads(second) else "cache here, or the policy on"
        problems.append(
            f"cluster.pools.{ours}.{moving} is not modelled on clients that take over KV from {theirs!r}; "
            f"expected {instead} {theirs!r}"
        )
    for name, pool in ((theirs, first), (ours, second)):
        if by_priority(pool):
            problems.append(
                f"cluster.pools.{name}.scheduling_policy: priority is not modelled with prefill and decode on pools "
                "of their own; expected fcfs"
            )
        if plans_gangs(pool.batching):
            gang = policy_name(pool.batching)
            problems.append(
                f"cluster.pools.{name}.batching: a gang of {gang!r} keeps prefill and decode together"
            )


def check_context(name: str, pool: LLMPool, retrieval: Stage, problems: list[str]) -> None:
    """Append a problem if the pool's prompts cannot begin with a context that ``retrieval`` has found."""
    if pool.engine.scheduler != "vllm":
        problems.append(
            f"cluster.pools.{name}.engine: prompts that begin with the context of {retrieval.name!r} are not "
            f"modelled with the scheduler of {pool.engine.name}; expected engine=vllm"
        )
    if by_priority(pool):
        problems.append(
            f"cluster.pools.{name}.scheduling_policy: priority is not modelled for prompts that begin with the "
            f"context of {retrieval.name!r}; expected fcfs"
        )
    moving = moves_blocks(pool)
    if moving is not None:
        instead = "no tiers" if offloads(pool) else "cache"
        problems.append(
            f"cluster.pools.{name}.{moving} is not modelled for prompts that begin with the context of "
            f"{retrieval.name!r}; expected {instead}, or a pipeline without that stage"
        )
    if plans_gangs(pool.batching):
        gang = policy_name(pool.batching)
        problems.append(
            f"cluster.pools.{name}.batching: a gang of {gang!r} pads its prompts and computes all of them, "
            f"whatever {retrieval.name!r} retrieves; expected another policy"
        )
    if state_layers(pool.model):
        problems.append(
            f"cluster.pools.{name}.model: {pool.model.name} has layers that keep a state, which the context of "
            f"{retrieval.name!r} does not bring back; expected a model with attention alone"
        )


def check_branches(name: str, pool: LLMPool, decode: Stage, problems: list[str]) -> None:
    """Append a problem if branches cannot share their prompt through the prefix cache."""
    key = f"cluster.pools.{name}.prefix_cache"
    if pool.engine.scheduler != "vllm" and "prefill" not in pool.serves:
        problems.append(
            f"cluster.pools.{name}.engine: the {decode.options.branches} branches of {decode.key} share their "
            f"prompt, which is not modelled on decode clients of {pool.engine.name}; expected engine=vllm, or "
            "cluster=replicas"
        )
        return
    branches = f"the {decode.options.branches} branches of {decode.key} share their prompt through it"
    obstacle = prefix_cache_obstacle(pool)
    if pool.prefix_cache is False:
        problems.append(f"{key}: false, but {branches}; expected true or null")
    elif pool.prefix_cache is None and obstacle is not None:
        problems.append(f"{key}: null, and {obstacle}, but {branches}")


def check_watched(name: str, pool: LLMPool, guard: Stage, problems: list[str]) -> None:
    """Append a problem if a guard cannot read answers during generation because a gang delivers them as a whole."""
    if pool.engine.scheduler != "vllm":
        problems.append(
            f"cluster.pools.{name}.engine: {guard.name!r} reads answers while they are written, which is not "
            f"modelled with the scheduler of {pool.engine.name}; expected engine=vllm"
        )
    if by_priority(pool):
        problems.append(
            f"cluster.pools.{name}.scheduling_policy: {guard.name!r} reads answers while they are written, which is "
            "not modelled with priority; expected fcfs"
        )
    if plans_gangs(pool.batching):
        gang = policy_name(pool.batching)
        problems.append(
            f"cluster.pools.{name}.batching: a gang of {gang!r} is delivered as a whole, and {guard.name!r} "
            "reads while it is written; expected another policy"
        )
