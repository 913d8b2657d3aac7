"""The kind ``llm``: engines that run a model on devices of the cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from hermes_flow.config.physical_values import check_model
from hermes_flow.config.pools import pool_kinds
from hermes_flow.config.schema import Cluster
from hermes_flow.cost.kv import kv_bytes_per_token, state_bytes_per_sequence
from hermes_flow.errors import ConfigError
from hermes_flow.pools.client import Calls
from hermes_flow.pools.kind import Asked, AskedWork, Handovers, KVShape, Lowering, PoolKind, at_pool
from hermes_flow.pools.llm.batching import batching_policies, plans_gangs, policy_name
from hermes_flow.pools.llm.build import llm_clients, llm_tasks, record_llm
from hermes_flow.pools.llm.by_priority.settings import by_priority
from hermes_flow.pools.llm.capacity import KVCapacity
from hermes_flow.pools.llm.cast_kv import cast_kv
from hermes_flow.pools.llm.check import check_llm_pool, more_than_fits
from hermes_flow.pools.llm.check_stages import (
    check_branches,
    check_context,
    check_notice,
    check_pair,
    check_prefixes,
    check_watched,
)
from hermes_flow.pools.llm.deciding_client import DecidingClient
from hermes_flow.pools.llm.engine_client import EngineClient
from hermes_flow.pools.llm.evidence import unknown_kernels
from hermes_flow.pools.llm.expert_kernels import unmeasured_kernels
from hermes_flow.pools.llm.foreign_hardware import foreign_hardware
from hermes_flow.pools.llm.held_contexts import holds_contexts
from hermes_flow.pools.llm.lower import lower_llm
from hermes_flow.pools.llm.offload.lower import check_kept_turns
from hermes_flow.pools.llm.prefix_default import (
    PrefixCacheChoice,
    prefix_cache_choice,
    with_prefix_note,
)
from hermes_flow.pools.llm.recorded_steps import unused_steps
from hermes_flow.pools.llm.rejected import rejected
from hermes_flow.pools.llm.scale_up_domain import scale_up_warnings
from hermes_flow.pools.llm.schema import LLMPool
from hermes_flow.pools.llm.server_limits import seat_warnings
from hermes_flow.pools.llm.sides import check_sides
from hermes_flow.pools.llm.tasks import LLMTasks
from hermes_flow.pools.llm.work import llm_work
from hermes_flow.program.ops import Op
from hermes_flow.program.pools import LLMClientSpec, Pool
from hermes_flow.program.program import Program
from hermes_flow.program.work import Forward, Generate, Work
from hermes_flow.recording.recording import ClientRecord
from hermes_flow.routing import RoutingPolicy
from hermes_flow.stages.graph import Stage
from hermes_flow.stages.placed import PlacedStage


@pool_kinds.register("llm")
class LLMKind(PoolKind):
    """The kind of pool for prefill, decode, guards, rewards and every other forward pass of an LLM."""

    schema: ClassVar[type[LLMPool]] = LLMPool
    work = "llm"
    takes_back = True
    renews = True
    prompts = True
    shares_router = True
    elastic = True
    takes_turns = True

    def unlike(self, first: LLMPool, other: LLMPool) -> str | None:
        """Return the first key in which the pools' prompts or KV differ; the precision of weights may differ."""
        if first.block_size != other.block_size:
            return "block_size"
        if first.adapters != other.adapters:
            return "adapters"
        if first.model.precision.kv_cache != other.model.precision.kv_cache:
            return "model.precision.kv_cache"
        alike = replace(other.model, precision=first.model.precision) == first.model
        return None if alike else "model"

    def check(self, name: str, pool: LLMPool, cluster: Cluster, problems: list[str]) -> KVCapacity | None:
        """Check its batching, its parallelism, its models, and that they fit its hardware; return its capacity."""
        key = f"cluster.pools.{name}"
        try:
            batching_policies.parse(pool.batching, f"{key}.batching")
        except ConfigError as error:
            problems.append(str(error))
        figures: list[str] = []
        check_model(pool.model, f"{key}.model", figures)
        if pool.speculative.draft is not None:
            check_model(pool.speculative.draft, f"{key}.speculative.draft", figures)
        capacity = check_llm_pool(pool, key, problems, sound=not figures)
        problems += figures
        return capacity

    def sharing_problems(self, name: str, pool: LLMPool, taker: str) -> list[str]:
        """Return the settings under which its engine cannot take turns on its device with tasks of ``taker``."""
        why = f"but {taker!r} takes turns on its device; expected"
        key = f"cluster.pools.{name}"
        found = []
        if pool.engine.scheduler != "vllm":
            found.append(f"engine: {pool.engine.name}, {why} vllm")
        if by_priority(pool):
            found.append(f"{key}.scheduling_policy: priority, {why} fcfs")
        if pool.lookahead:
            found.append(
                f"{key}.lookahead: {pool.lookahead}, {why} 0, a step that is planned when the device is free"
            )
        if pool.devices > 1:
            found.append(
                f"{key}: {pool.devices} devices, {why} one (tensor, pipeline and data parallel of 1)"
            )
        if pool.adapters is not None:
            found.append(f"{key}.adapters: {why} null")
        if plans_gangs(pool.batching):
            found.append(f"{key}.batching: {pool.batching}, {why} a policy that plans single steps")
        if pool.offload is not None and pool.offload.tiers:
            found.append(f"{key}.offload.tiers: {', '.join(pool.offload.tiers)}, {why} none")
        return found

    def can_serve(self, stage: Stage) -> bool:
        """Return whether a stage is a forward pass, or encodes images before a prefill."""
        return stage.role == "images" or super().can_serve(stage)

    def check_served(self, name: str, pool: LLMPool, stage: Stage, problems: list[str]) -> None:
        """Check that its engine can encode images."""
        if stage.role == "images":
            from hermes_flow.pools.llm.images import check_images

            check_images(name, pool, problems)

    def check_prefixes(self, name: str, pool: LLMPool, block_tokens: int, problems: list[str]) -> None:
        """Check the size of its blocks."""
        check_prefixes(name, pool, block_tokens, problems)

    def check_handover(self, theirs: str, ours: str, cluster: Cluster, problems: list[str]) -> None:
        """Check that both hold the same model in the same precision, and can move KV."""
        first, second = cluster.pools[theirs], cluster.pools[ours]
        if isinstance(first, LLMPool) and isinstance(second, LLMPool):
            check_pair(theirs, first, ours, second, problems)
            check_notice(ours, second, cluster, problems)
            if first.engine.scheduler == second.engine.scheduler != "vllm":
                check_sides(theirs, first, ours, second, cluster, problems)

    def check_context(
        self, name: str, pool: LLMPool, retrieval: Stage, prefill: Stage, problems: list[str]
    ) -> None:
        """Check that its prompts can begin with a retrieved context."""
        check_context(name, pool, retrieval, problems)
        if pool.adapters is not None:
            problems.append(
                f"cluster.pools.{name}.adapters: its prompts begin with contexts that {retrieval.name!r} retrieves, "
                "whose KV is that of no adapter; expected null"
            )

    def check_branches(self, name: str, pool: LLMPool, decode: Stage, problems: list[str]) -> None:
        """Check that branches can share their prompt."""
        check_branches(name, pool, decode, problems)

    def check_watched(self, name: str, pool: LLMPool, guard: Stage, problems: list[str]) -> None:
        """Check that answers can be read while they are written."""
        check_watched(name, pool, guard, problems)

    def lower_work(
        self, placed: Sequence[PlacedStage], places: Sequence[int], lowering: Lowering
    ) -> AskedWork:
        """Return the prompts and answers of each stage."""
        work: dict[int, Work] = {}
        for place in places:
            own, images = placed[place], None
            if own.images is not None:
                name, pool = list(lowering.cluster.pools.items())[own.pool]
                assert isinstance(pool, LLMPool)
                from hermes_flow.pools.llm.images import prompt_images

                try:
                    images = prompt_images(name, pool, lowering.costs[name], own.images)
                except ConfigError as error:
                    lowering.problems.append(str(at_pool(error, name, pool)))
                    continue
            work[place] = llm_work(own, images)
        return AskedWork(work)

    def lower(
        self, name: str, pool: LLMPool, routing: RoutingPolicy, asked: Sequence[Asked], lowering: Lowering
    ) -> Pool:
        """Return the pool as the simulator sees it, with tables for its longest sequence."""
        longest = max((_longest(own.work) for own in asked), default=1)
        if pool.engine.scheduler != "vllm" and lowering.handovers[name].receives:
            choice = PrefixCacheChoice(False, f"by default: decode clients of {pool.engine.name} have none")
        else:
            choice = prefix_cache_choice(name, pool, asked, lowering.requests)
        lowering.warnings.extend(
            [
                *choice.warnings,
                *foreign_hardware(name, pool),
                *unmeasured_kernels(name, pool),
                *cast_kv(name, pool, lowering.costs[name]),
                *unknown_kernels(name, pool.hardware),
            ]
        )
        decided, capacity = replace(pool, prefix_cache=choice.on), lowering.reckoned[name]
        assert isinstance(capacity, KVCapacity)
        handovers = lowering.handovers[name]
        if getattr(lowering.costs[name], "of_hardware", True):
            lowering.warnings.extend(more_than_fits(name, pool))
        if pool.num_reserved_decode_tokens is not None and not handovers.receives:
            lowering.warnings.append(
                f"cluster.pools.{name}.num_reserved_decode_tokens has no effect: no KV is sent to the pool"
            )
        lowering.warnings.extend(
            scale_up_warnings(name, pool, lowering.cluster, lowering.network, handovers.moves)
        )
        if by_priority(pool) and lowering.requests.priority is None:
            lowering.warnings.append(
                f"cluster.pools.{name}.scheduling_policy: priority is as fcfs here, because no request has a priority"
            )
        if pool.engine.scheduler == "sglang" and pool.packing == "lpm" and not decided.prefix_cache:
            lowering.warnings.append(
                f"cluster.pools.{name}.packing: lpm is as fcfs here, because the pool has no prefix cache"
            )
        if holds_contexts(pool):
            _check_held(name, asked, capacity, handovers, lowering)
        check_kept_turns(name, decided, routing, lowering.requests)
        if decided.tool_gap.policy != "cache" and not any(
            (own.prefill or own).stage.extends for own in asked
        ):
            lowering.warnings.append(
                f"cluster.pools.{name}.tool_gap has no effect: no stage of the pool goes on from prompt and "
                "answer of another one"
            )
        return with_prefix_note(lower_llm(name, decided, routing, capacity, longest, lowering), choice)

    def kv_shape(self, pool: LLMPool) -> KVShape:
        """Return the KV of a token of its model, and the states of a sequence."""
        model = pool.model
        return KVShape(kv_bytes_per_token(model), model.layers, state_bytes_per_sequence(model))

    def unservable(self, name: str, pool: LLMPool, lowered: Pool, op: Op) -> dict[int, str]:
        """Return the requests that are longer than the model's context, or than all KV blocks."""
        client = lowered.client
        assert isinstance(client, LLMClientSpec)
        return rejected(name, pool, client, op)

    def build(
        self, program: Program, index: int, ops: Sequence[int], calls: Calls
    ) -> tuple[LLMTasks, Sequence[EngineClient | DecidingClient]]:
        """Return the tasks and the engines."""
        pool = program.pools[index]
        spec = pool.client
        assert isinstance(spec, LLMClientSpec)
        tasks = llm_tasks(program, ops, [program.pools[number].client for number in program.sharing(index)])
        if calls.notify and not all(calls.waited):
            tasks.waited = bytearray().join([bytes([one]) * len(program.requests) for one in calls.waited])
        return tasks, llm_clients(pool.count, spec, tasks, calls)

    def join(
        self, program: Program, index: int, tasks: LLMTasks, calls: Calls
    ) -> Sequence[EngineClient | DecidingClient]:
        """Return the engines of a pool that serves the tasks of another."""
        pool = program.pools[index]
        spec = pool.client
        assert isinstance(spec, LLMClientSpec)
        return llm_clients(pool.count, spec, tasks, calls)

    def renew(
        self, program: Program, index: int, tasks: LLMTasks, calls: Calls, place: int
    ) -> EngineClient | DecidingClient:
        """Return an engine that starts again."""
        spec = program.pools[index].client
        assert isinstance(spec, LLMClientSpec)
        client = llm_clients(1, spec, tasks, calls)[0]
        client.index = place
        return client

    def pace_problem(self, pool: LLMPool) -> str | None:
        """Return why its engines cannot be slower for a time: they run several steps at once, or whole gangs."""
        if pool.pipeline_parallel > 1:
            return "steps of pipeline ranks have one pace; expected pipeline_parallel=1"
        if plans_gangs(pool.batching):
            return (
                f"gangs of {policy_name(pool.batching)!r} have one pace; expected a policy that plans steps"
            )
        return None

    def migration_problem(self, pool: LLMPool) -> str | None:
        """Return why answers of a lost client cannot go on elsewhere: it is modelled for vLLM's scheduler alone."""
        if pool.engine.scheduler != "vllm":
            return f"this is not modelled with the scheduler of {pool.engine.name}"
        if by_priority(pool):
            return "this is not modelled with scheduling_policy=priority"
        for name in ("pipeline_parallel", "data_parallel"):
            if getattr(pool, name) > 1:
                return f"this is not modelled with {name}={getattr(pool, name)}"
        if plans_gangs(pool.batching):
            return f"this is not modelled with batching={policy_name(pool.batching)}"
        if pool.adapters is not None:
            return "this is not modelled with adapters"
        return None if pool.drafter is None else "this is not modelled with drafts (speculative)"

    def weight_bytes(self, pool: LLMPool, reckoned: object) -> float:
        """Return the bytes of weights on one device, those of the draft model included."""
        assert isinstance(reckoned, KVCapacity)
        return reckoned.weight_bytes

    def summarize(self, lowered: Pool, records: Sequence[ClientRecord]) -> dict[str, Any]:
        """Return the use of tiers, or what clients did for adapters or images; nothing where they have none."""
        client = lowered.client
        assert isinstance(client, LLMClientSpec)
        if not any(record.own is not None for record in records):
            return {}
        if client.offload is not None:
            from hermes_flow.pools.llm.adapter_use import adapter_figures
            from hermes_flow.pools.llm.offload.record import offload_summary

            adapters = [record.own.adapters for record in records if record.own.adapters is not None]
            tiers = {"offload": offload_summary(records, client.block_size)}
            return tiers if not adapters else tiers | {"adapters": adapter_figures(adapters)}
        if client.adapters is None:
            from hermes_flow.pools.llm.encoder_use import encoder_summary

            return {"images": encoder_summary(records)}
        from hermes_flow.pools.llm.adapter_use import adapter_summary

        return {"adapters": adapter_summary(records)}

    def record(self, pool: int, spec: LLMClientSpec, client: EngineClient | DecidingClient) -> ClientRecord:
        """Return the steps of an engine."""
        return record_llm(pool, spec, client)

    def run_warnings(self, lowered: Pool, records: Sequence[ClientRecord], end_ns: int) -> list[str]:
        """Return a warning where default seats bind, recorded steps are left, or a tier is written too fast."""
        client = lowered.client
        assert isinstance(client, LLMClientSpec)
        found = seat_warnings(lowered.name, lowered.hardware, client, records)
        found += unused_steps(lowered.name, client.cost, records)
        if client.offload is None:
            return found
        from hermes_flow.pools.llm.offload.record import write_warnings

        return [*found, *write_warnings(lowered.name, records, end_ns)]


def _check_held(
    name: str, asked: Sequence[Asked], capacity: KVCapacity, handovers: Handovers, lowering: Lowering
) -> None:
    """Append problems of contexts that hold blocks, and a warning where there are none."""
    key = f"cluster.pools.{name}.retrieved_kv"
    if handovers.moves:
        lowering.problems.append(
            f"{key}: held, but KV moves between this pool and another, which is not modelled together; expected "
            "at_admission"
        )
    if capacity.sequence_blocks or capacity.state_slots:
        lowering.problems.append(
            f"{key}: held is not modelled with blocks for states or short windows; expected at_admission"
        )
    if not any((own.prefill or own).retrieval for own in asked):
        lowering.warnings.append(f"{key} has no effect: no context is read for the prompts of this pool")


def _longest(work: Work) -> int:
    """Return the tokens of the longest sequence, prompt and answer."""
    assert isinstance(work, Generate | Forward)
    return int((work.prompt + work.output).max(initial=1))
