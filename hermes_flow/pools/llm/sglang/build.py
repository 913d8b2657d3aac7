"""Builds the clients of a pool with SGLang's scheduler."""

from __future__ import annotations

from hermes_flow.pools.client import Calls
from hermes_flow.pools.llm.deciding_client import DecidingClient
from hermes_flow.pools.llm.handing_client import ReceivingClient, SendingClient
from hermes_flow.pools.llm.sglang.decode_side import DecodeScheduler
from hermes_flow.pools.llm.sglang.interval_client import IntervalClient, IntervalReceivingClient
from hermes_flow.pools.llm.sglang.page_names import PageNames
from hermes_flow.pools.llm.sglang.prefill_side import PrefillScheduler
from hermes_flow.pools.llm.sglang.scheduler import SGLangScheduler
from hermes_flow.pools.llm.sglang.sequence import Sequence
from hermes_flow.pools.llm.sglang.settings import longest_answer
from hermes_flow.pools.llm.sglang.token_pool import TokenPool
from hermes_flow.pools.llm.tasks import LLMTasks
from hermes_flow.program.pools import LLMClientSpec, SGLangSettings


def sglang_clients(
    count: int, spec: LLMClientSpec, settings: SGLangSettings, tasks: LLMTasks, calls: Calls
) -> list[DecidingClient]:
    """Return ``count`` clients, each with a scheduler and a radix tree of its own; of one side, where KV moves."""
    names = PageNames(tasks, spec.block_size, tree=spec.prefix_cache)
    blocks = spec.kv_blocks // spec.attention_ranks
    capacity = blocks * spec.block_size

    def sequence_of(task: int) -> Sequence:
        prompt = tasks.prompt[task]
        if settings.side == "prefill":  # another client writes the rest of the answer
            return Sequence(task, prompt, 1, 1, tasks.ignores_eos(task), names.pages(task))
        limit = min(tasks.limit_of(task), longest_answer(capacity, spec.block_size, prompt))
        return Sequence(task, prompt, tasks.output[task], limit, tasks.ignores_eos(task), names.pages(task))

    seats, overlap = spec.max_num_seqs, bool(spec.lookahead)

    def pool() -> TokenPool:
        return TokenPool(blocks, spec.block_size, tree=spec.prefix_cache)

    if spec.attention_ranks > 1:
        from hermes_flow.pools.llm.sglang.ranks import ranked_clients

        return ranked_clients(count, spec, settings, tasks, calls, pool, sequence_of)
    if settings.side == "prefill":
        return [
            SendingClient(
                i, spec, tasks, calls, PrefillScheduler(settings, pool(), seats, overlap=overlap), sequence_of
            )
            for i in range(count)
        ]
    if settings.side == "decode" and settings.receive_interval > 1:
        return [
            IntervalReceivingClient(
                *(i, spec, tasks, calls, DecodeScheduler(settings, pool(), seats, overlap=overlap)),
                sequence_of,
                settings.receive_interval,
            )
            for i in range(count)
        ]
    if settings.side == "decode":
        return [
            ReceivingClient(
                i, spec, tasks, calls, DecodeScheduler(settings, pool(), seats, overlap=overlap), sequence_of
            )
            for i in range(count)
        ]
    if spec.offload is not None:
        from hermes_flow.pools.llm.sglang.host_client import host_client

        return [host_client(i, spec, settings, spec.offload, tasks, calls, sequence_of) for i in range(count)]
    if settings.receive_interval > 1:
        return [
            IntervalClient(
                *(i, spec, tasks, calls, SGLangScheduler(settings, pool(), seats, overlap=overlap)),
                sequence_of,
                settings.receive_interval,
            )
            for i in range(count)
        ]
    return [
        DecidingClient(
            i, spec, tasks, calls, SGLangScheduler(settings, pool(), seats, overlap=overlap), sequence_of
        )
        for i in range(count)
    ]
