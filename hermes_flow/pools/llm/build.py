"""Builds the clients of an LLM pool and their tasks, and records a client after the run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hermes_flow.pools.client import Calls, column_of
from hermes_flow.pools.llm.batching import batching_policies, policy_of_client
from hermes_flow.pools.llm.batching.limited_chunks import LimitedChunks
from hermes_flow.pools.llm.client import LLMClient
from hermes_flow.pools.llm.deciding_client import DecidingClient
from hermes_flow.pools.llm.earliest_end import shortest_steps
from hermes_flow.pools.llm.engine_client import EngineClient
from hermes_flow.pools.llm.forward_client import ForwardClient
from hermes_flow.pools.llm.pipelined_client import PipelinedClient
from hermes_flow.pools.llm.plain_client import PlainClient, is_plain
from hermes_flow.pools.llm.scheduler import BatchingPolicy
from hermes_flow.pools.llm.tasks import LLMTasks
from hermes_flow.program.offload import OffloadSpec
from hermes_flow.program.pools import ClientSpec, LLMClientSpec
from hermes_flow.program.program import Program
from hermes_flow.program.units import PS_PER_NS, Ints
from hermes_flow.program.work import Forward, Generate
from hermes_flow.recording.links import LinkRecord
from hermes_flow.recording.recording import ClientRecord

if TYPE_CHECKING:
    from hermes_flow.pools.llm.adapter_use import AdapterUse
    from hermes_flow.pools.llm.encoder_cache import EncoderCache
    from hermes_flow.pools.llm.encoder_use import EncoderUse
    from hermes_flow.pools.llm.offload.client import OffloadingClient
    from hermes_flow.pools.llm.offload.record import OffloadUse
    from hermes_flow.pools.llm.prompt_blocks import PoolContent


def llm_tasks(program: Program, numbers: Sequence[int], clients: Sequence[ClientSpec]) -> LLMTasks:
    """Return the tasks of the pool that serves the ops ``numbers``, or of several with one router."""
    specs = [spec for spec in clients if isinstance(spec, LLMClientSpec)]
    ops, requests = [program.ops[number] for number in numbers], program.requests
    content = _content(program, numbers) if any(spec.prefix_cache for spec in specs) else None
    asked = [op.llm for op in ops if op.llm is not None]
    tasks = LLMTasks(
        prompt=column_of([work.prompt for work in asked]),
        output=column_of([work.output for work in asked]),
        priority=None if requests.priority is None else column_of([requests.priority] * len(ops)),
        block_keys=None if content is None else content.prompt_keys,
        block_runs=None if content is None else content.prompt_runs,
        answer_runs=None if content is None else content.answer_runs,
        block_size=specs[0].block_size,
        limit=_of_requests(requests.output_limit, len(ops)),
        ignore_eos=_of_requests(requests.ignore_eos, len(ops)),
    )
    if any(work.images is not None for work in asked if isinstance(work, Generate)):
        from hermes_flow.pools.llm.images import images_of_tasks

        tasks.images = images_of_tasks(program, ops)
    if requests.adapter is not None and any(spec.adapters is not None for spec in specs):
        tasks.adapter = column_of([requests.adapter] * len(ops))
    if content is not None and any(
        spec.offload is not None and spec.offload.gap != "cache" for spec in specs
    ):
        tasks.goes_on = content.goes_on()
    if content is not None:
        tasks.chains = content.lone_chains(tasks.prompt)
    tasks.tier_hits = {tier.name: {} for spec in specs if spec.offload for tier in spec.offload.tiers}
    emit_first = any(op.kv is not None and op.kv.emits_first for op in ops)
    if emit_first or any(op.context is not None for op in ops):
        tasks.preloaded = {}
    tasks.leaving = _leaving(program, numbers)
    tasks.awaited = bytes(tasks.leaving)
    holds = any(spec.holds_contexts for spec in specs)
    tasks.receives = any(op.kv is not None or (holds and op.context is not None) for op in ops)
    tasks.forward_only = all(isinstance(work, Forward) for work in asked)
    tasks.branches, tasks.requests = _branches(program, numbers), len(requests)
    tasks.emits_first = emit_first
    return tasks


def _content(program: Program, numbers: Sequence[int]) -> PoolContent:
    """Return what the prompts of ops consist of, for pools with a prefix cache."""
    from hermes_flow.pools.llm.prompt_blocks import PoolContent

    return PoolContent(program, list(numbers))


def llm_clients(
    count: int, spec: LLMClientSpec, tasks: LLMTasks, calls: Calls
) -> Sequence[EngineClient | DecidingClient]:
    """Return the clients, each with a batching policy of its own."""
    if spec.sglang is not None:
        from hermes_flow.pools.llm.sglang.build import sglang_clients

        return sglang_clients(count, spec, spec.sglang, tasks, calls)
    if spec.tensorrt_llm is not None:
        from hermes_flow.pools.llm.tensorrt_llm.build import tensorrt_clients

        return tensorrt_clients(count, spec, spec.tensorrt_llm, tasks, calls)
    if spec.by_priority:
        from hermes_flow.pools.llm.by_priority.build import priority_clients

        return priority_clients(count, spec, tasks, calls)
    policy = spec.policy or batching_policies.parse(spec.batching, "batching")
    if spec.longest_chunk:
        policy = LimitedChunks(spec.longest_chunk)
    policies = [policy_of_client(policy) for _ in range(count)]
    done, begun, notify = calls.done, calls.begun, calls.notify
    clients: list[EngineClient]
    if spec.offload is not None:
        offloading = _offloading_kind(spec, tasks)
        clients = [
            offloading(i, spec, tasks, own, done, begun, notify=notify) for i, own in enumerate(policies)
        ]
    elif spec.attention_ranks > 1:
        from hermes_flow.pools.llm.ranked_client import RankedClient

        clients = [
            RankedClient(i, spec, tasks, _of_ranks(spec, own), done, begun, notify=notify)
            for i, own in enumerate(policies)
        ]
    elif spec.pipeline_ranks > 1:
        clients = [
            PipelinedClient(i, spec, tasks, own, done, begun, notify=notify) for i, own in enumerate(policies)
        ]
    else:
        if tasks.adapter and spec.adapters is not None:
            from hermes_flow.pools.llm.adapter_client import AdapterClient

            return [
                AdapterClient(i, spec, tasks, own, done, begun, notify=notify)
                for i, own in enumerate(policies)
            ]
        if spec.holds_contexts:
            from hermes_flow.pools.llm.context_holding_client import ContextHoldingClient

            holding = [
                ContextHoldingClient(i, spec, tasks, own, done, begun, notify=notify)
                for i, own in enumerate(policies)
            ]
            for one in holding:
                one.grant_to(calls.granted)
            return holding
        alone = not tasks.leaving and not tasks.receives  # else its plans are seen from outside
        shortest = shortest_steps(spec) if alone else None
        kind = _plain_kind(tasks) if is_plain(spec, tasks, policies[0]) else LLMClient
        clients = [
            kind(i, spec, tasks, own, done, begun, notify=notify, shortest=shortest)
            for i, own in enumerate(policies)
        ]
    for client in clients:
        client.grant_to(calls.granted)
    return clients


def _plain_kind(tasks: LLMTasks) -> type[PlainClient]:
    """Return the kind of client whose scheduler has nothing but the plain case to mind."""
    return ForwardClient if tasks.forward_only else PlainClient


def _offloading_kind(spec: LLMClientSpec, tasks: LLMTasks) -> type[OffloadingClient]:
    """Return the kind of client with tiers of memory, which may have adapters."""
    if tasks.adapter and spec.adapters is not None:
        from hermes_flow.pools.llm.offload.adapter_client import OffloadingAdapterClient

        return OffloadingAdapterClient
    from hermes_flow.pools.llm.offload.client import OffloadingClient

    return OffloadingClient


def _of_ranks(spec: LLMClientSpec, policy: BatchingPolicy) -> list[BatchingPolicy]:
    return [policy_of_client(policy) for _ in range(spec.attention_ranks)]


def record_llm(pool: int, spec: LLMClientSpec, client: EngineClient | DecidingClient) -> ClientRecord:
    """Return the steps of a client and their totals."""
    if isinstance(client, DecidingClient):
        return client.record(pool)
    lanes = client.lanes()
    return ClientRecord(
        pool=pool,
        client=client.index,
        capacity=1,
        tasks=client.served,
        busy_ns=client.busy_ps // PS_PER_NS,
        segments=np.concatenate(lanes) if len(lanes) > 1 else lanes[0],
        lane_rows=tuple(len(rows) for rows in lanes) if len(lanes) > 1 else (),
        resume_gaps_ps=np.array(client.resume_gaps_ps(), dtype=np.int64),
        rank_segments=client.rank_rows(),
        kv_peak_blocks=spec.attention_ranks * max(batch.peak for batch in client.batches),
        context_ps=spec.cost.context_ps,
        prefill_pairs=0.5 * client.twice_pairs,
        own=_adapter_use(client) if spec.offload is None else _offload_use(client, spec.offload),
        links=() if spec.offload is None else _tier_links(client),
    )


def _adapter_use(client: EngineClient) -> AdapterUse | EncoderUse | None:
    """Return what a client did for adapters, or for images; None where it serves neither."""
    slots = client.batches[0].adapters
    if slots is None:
        return None if client.batches[0].images is None else _encoder_use(client.batches[0].images)
    from hermes_flow.pools.llm.adapter_client import AdapterClient
    from hermes_flow.pools.llm.adapter_use import adapter_use

    if not isinstance(client, AdapterClient):
        from hermes_flow.pools.llm.offload.adapter_client import OffloadingAdapterClient

        assert isinstance(client, OffloadingAdapterClient)
    aside = client.tasks.put_aside
    seen = [task for task in client.adapters.seen if task not in aside] if aside else client.adapters.seen
    return adapter_use(slots, seen, client.tasks.start_ps)


def _encoder_use(images: EncoderCache) -> EncoderUse:
    from hermes_flow.pools.llm.encoder_use import EncoderUse

    return EncoderUse(images.encoded, images.found)


def _offload_use(client: EngineClient, spec: OffloadSpec) -> OffloadUse:
    from hermes_flow.pools.llm.adapter_use import AdapterUse
    from hermes_flow.pools.llm.offload.batch import OffloadingBatch
    from hermes_flow.pools.llm.offload.record import offload_use

    batch = client.batches[0]
    assert isinstance(batch, OffloadingBatch)
    use = None if batch.adapters is None else _adapter_use(client)
    assert use is None or isinstance(use, AdapterUse)
    return offload_use(batch, spec, use)


def _tier_links(client: EngineClient) -> tuple[LinkRecord, ...]:
    from hermes_flow.pools.llm.offload.batch import OffloadingBatch

    batch = client.batches[0]
    assert isinstance(batch, OffloadingBatch)
    return batch.links.records()


def _of_requests(column: Ints | None, ops: int) -> list[int] | None:
    """Return a column of the requests as one of the tasks of so many ops."""
    return None if column is None else column_of([column] * ops)


def _leaving(program: Program, numbers: Sequence[int]) -> bytearray:
    """Return by task, for these ops, 1 where its KV goes to another client; nothing if none does."""
    count = len(program.requests)
    leaving = np.zeros((len(numbers), count), dtype=np.uint8)
    for op in program.ops:
        if op.kv is not None and op.kv.source in numbers:
            leaving[numbers.index(op.kv.source)] |= 1 if op.taken is None else op.taken.astype(np.uint8)
    return bytearray(leaving.tobytes()) if leaving.any() else bytearray()


def _branches(program: Program, numbers: Sequence[int]) -> dict[int, tuple[int, ...]]:
    """Return, by place among these ops, the places of those that receive the KV of the same prompt on one client."""
    groups: dict[int, list[int]] = {}
    for place, number in enumerate(numbers):
        op = program.ops[number]
        if op.kv is not None:
            groups.setdefault(number if op.with_op is None else op.with_op, []).append(place)
    return {
        place: tuple(other for other in group if other != place)
        for group in groups.values()
        for place in group
        if len(group) > 1
    }
