"""Builds the clients of a pool with TensorRT-LLM's scheduler."""

from __future__ import annotations

from hermes_flow.pools.client import Calls
from hermes_flow.pools.llm.deciding_client import DecidingClient
from hermes_flow.pools.llm.handing_client import ReceivingClient, SendingClient
from hermes_flow.pools.llm.sglang.page_names import PageNames
from hermes_flow.pools.llm.tasks import LLMTasks
from hermes_flow.pools.llm.tensorrt_llm.block_pool import BlockPool
from hermes_flow.pools.llm.tensorrt_llm.decode_side import DecodeScheduler
from hermes_flow.pools.llm.tensorrt_llm.prefill_side import PrefillScheduler
from hermes_flow.pools.llm.tensorrt_llm.scheduler import TensorRTScheduler
from hermes_flow.pools.llm.tensorrt_llm.sequence import Sequence
from hermes_flow.pools.llm.tensorrt_llm.waiting_client import WaitingClient
from hermes_flow.program.pools import LLMClientSpec, TensorRTSettings

_SCHEDULERS = {"both": TensorRTScheduler, "prefill": PrefillScheduler, "decode": DecodeScheduler}
_CLIENTS = {"both": DecidingClient, "prefill": SendingClient, "decode": ReceivingClient}


def tensorrt_clients(
    count: int, spec: LLMClientSpec, settings: TensorRTSettings, tasks: LLMTasks, calls: Calls
) -> list[DecidingClient]:
    """Return ``count`` clients, each with a scheduler and blocks of its own; of one side, where KV moves."""
    names = PageNames(tasks, spec.block_size, tree=spec.prefix_cache)
    blocks = spec.kv_blocks // spec.attention_ranks

    def sequence_of(task: int) -> Sequence:
        prompt = tasks.prompt[task]
        if settings.side == "prefill":  # another client writes the rest of the answer
            return Sequence(task, prompt, 1, 1, names.pages(task))
        limit = min(tasks.limit_of(task), blocks * spec.block_size - prompt)
        return Sequence(task, prompt, tasks.output[task], limit, names.pages(task))

    limits, overlap = (spec.max_num_seqs, spec.max_num_batched_tokens), bool(spec.lookahead)

    def pool() -> BlockPool:
        return BlockPool(blocks, spec.block_size, reuses=spec.prefix_cache)

    def scheduler() -> TensorRTScheduler:
        return _SCHEDULERS[settings.side](settings, pool(), *limits, overlap=overlap)

    if spec.attention_ranks > 1:
        from hermes_flow.pools.llm.ranked_deciding_client import client_of_side
        from hermes_flow.pools.llm.tensorrt_llm.shared_queue import SharedQueue

        kind = client_of_side(settings.side)

        def ranks() -> SharedQueue:
            return SharedQueue([scheduler() for _ in range(spec.attention_ranks)], settings.balance)

        return [kind(i, spec, tasks, calls, ranks(), sequence_of) for i in range(count)]
    if settings.side == "both" and settings.wait_ps:
        return [
            WaitingClient(i, spec, tasks, calls, scheduler(), sequence_of, settings.wait_ps)
            for i in range(count)
        ]
    client = _CLIENTS[settings.side]
    return [client(i, spec, tasks, calls, scheduler(), sequence_of) for i in range(count)]
