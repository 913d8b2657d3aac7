"""Chunked prefill with a limit on the tokens of one prompt in a step, as vLLM's ``long_prefill_token_threshold``.

Several prompts may then be in progress at once, with decoding sequences between them, so running sequences are gone
through one by one while one is. All of them have their turn in every step: none takes more tokens than in the step
before, except the last one, whose prompt the budget has cut.
"""

from __future__ import annotations

from typing import ClassVar

from hermes_flow.pools.llm.batching.limited_chunk_steps import plan_limited_chunks
from hermes_flow.pools.llm.scheduler import Scheduler
from hermes_flow.program.quick_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class LimitedChunks:
    """The policy ``chunked``, but a prompt gets at most ``longest`` tokens in a step."""

    gang: ClassVar[bool] = False
    whole_prompts: ClassVar[bool] = False
    longest: int

    def plan(self, client: Scheduler) -> bool:
        """Plan one step, or a decode run where no prompt can join."""
        return plan_limited_chunks(client, self.longest)
