"""Chunked prefill as in vLLM V1: one token budget for running sequences first, then for waiting prompts."""

from __future__ import annotations

from typing import ClassVar

from hermes_flow.pools.llm.batching.chunk_steps import plan_chunks
from hermes_flow.pools.llm.batching.policy import batching_policies
from hermes_flow.program.quick_dataclass import dataclass


@batching_policies.register("chunked")
@dataclass(frozen=True, slots=True)
class Chunked:
    """Every running sequence takes a token, or the next chunk of its prompt; waiting prompts take the rest.

    The last prompt is cut to what is left of ``max_num_batched_tokens``. A waiting prompt is admitted when a
    seat and the blocks of its whole present sequence are free; it takes only those of its first chunk. A
    running sequence without a free block preempts the one admitted last, and nobody is admitted in that step.
    """

    gang: ClassVar[bool] = False
    whole_prompts: ClassVar[bool] = False

    plan = staticmethod(plan_chunks)
