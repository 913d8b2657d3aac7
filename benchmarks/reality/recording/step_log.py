"""A vLLM scheduler that keeps what every step did.

Chunks of prompts (also what a preempted request computes again) are written TOKENS@CONTEXT, where CONTEXT was
computed, or found in the prefix cache, before; a decode is a step of one token beyond prompt and answer so far.
"""

from __future__ import annotations

from typing import Any

from vllm.v1.core.sched.scheduler import Scheduler

FIELDS = (
    *(
        "prefills",
        "prefill_tokens",
        "prefill_context",
        "prefill_pairs",
        "chunks",
        "decodes",
        "decode_context",
    ),
    *("running", "waiting", "preempted", "free_blocks"),
)


class StepLog(Scheduler):
    """The engine's own scheduler; ``last`` is the row of the newest step, with the columns FIELDS."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._row: list[Any] | None = None
        self.last: list[Any] | None = None
        self.started: list[str] = []  # requests that computed for the first time in this step
        self._preempted = 0
        self.limits = {
            "kv_blocks_usable": self.kv_cache_manager.block_pool.get_num_free_blocks(),
            "block_size": self.block_size,
            "max_num_seqs": self.max_num_running_reqs,
            "max_num_batched_tokens": self.max_num_scheduled_tokens,
            "prefix_cache": bool(self.cache_config.enable_prefix_caching),
        }

    def _preempt_request(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        self._preempted += 1
        return super()._preempt_request(request, *args, **kwargs)

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        """Plan a step, and note what is in it."""
        out = super().schedule(*args, **kwargs)
        self._row = None
        if not out.total_num_scheduled_tokens:
            return out
        tokens = past = pairs = decodes = context = 0
        chunks = []
        for name, count in out.num_scheduled_tokens.items():
            request = self.requests[name]
            before = request.num_computed_tokens - count  # schedule() has added this step's tokens already
            if count == 1 and before >= request.num_prompt_tokens:
                decodes += 1
                context += before
            else:
                tokens += count
                past += before
                pairs += count * (count + 1) // 2 + count * before
                chunks.append(f"{count}@{before}")
        self.started = [new.req_id for new in out.scheduled_new_reqs]
        self._row = [len(chunks), tokens, past, pairs, " ".join(chunks), decodes, context]
        self._row += [len(self.running), len(self.waiting), self._preempted]
        self._preempted = 0
        return out

    def update_from_output(self, *args: Any, **kwargs: Any) -> Any:
        """Take the results of a step, and complete its row."""
        out = super().update_from_output(*args, **kwargs)
        if self._row is not None:
            self.last = [*self._row, self.kv_cache_manager.block_pool.get_num_free_blocks()]
        return out
