"""Builds the clients of a pool with SGLang's scheduler."""

from __future__ import annotations

from hermes_flow.pools.client import Calls
from hermes_flow.pools.llm.deciding_client import DecidingClient
from hermes_flow.pools.llm.sglang.page_names import PageNames
from hermes_flow.pools.llm.sglang.scheduler import SGLangScheduler
from hermes_flow.pools.llm.sglang.sequence import Sequence
from hermes_flow.pools.llm.sglang.settings import longest_answer
from hermes_flow.pools.llm.sglang.token_pool import TokenPool
from hermes_flow.pools.llm.tasks import LLMTasks
from hermes_flow.program.pools import LLMClientSpec, SGLangSettings


def sglang_clients(
    count: int, spec: LLMClientSpec, settings: SGLangSettings, tasks: LLMTasks, calls: Calls
) -> list[DecidingClient]:
    """Return ``count`` clients, each with a scheduler and a radix tree of its own."""
    names = PageNames(tasks, spec.block_size, tree=spec.prefix_cache)
    capacity = spec.kv_blocks * spec.block_size

    def sequence_of(task: int) -> Sequence:
        prompt = tasks.prompt[task]
        limit = min(tasks.limit_of(task), longest_answer(capacity, spec.block_size, prompt))
        return Sequence(task, prompt, tasks.output[task], limit, tasks.ignores_eos(task), names.pages(task))

    def scheduler() -> SGLangScheduler:
        pool = TokenPool(spec.kv_blocks, spec.block_size, tree=spec.prefix_cache)
        return SGLangScheduler(settings, pool, spec.max_num_seqs, overlap=bool(spec.lookahead))

    return [DecidingClient(i, spec, tasks, calls, scheduler(), sequence_of) for i in range(count)]
