"""Continuous batching with prefill first (Orca, vLLM V0): a step has whole prompts or decodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hermes_flow.pools.llm.batching.admission import admit_waiting
from hermes_flow.pools.llm.batching.decoding import decode_all
from hermes_flow.pools.llm.batching.policy import batching_policies
from hermes_flow.pools.llm.scheduler import Completed, Prefills, Scheduler


@batching_policies.register("continuous")
@dataclass(frozen=True, slots=True)
class Continuous:
    """If waiting prompts fit, the step is whole prompts only; else every running sequence decodes.

    Prompts are admitted in order while seats, the blocks of the whole present sequence and the token budget
    last; a prompt longer than the whole budget makes a step of its own. A decoding sequence without a free
    block preempts the one admitted last.
    """

    gang: ClassVar[bool] = False
    whole_prompts: ClassVar[bool] = True

    def plan(self, client: Scheduler) -> bool:
        """Plan a step of prompts, or a decode run where none can join."""
        if client.waiting:
            prefills: Prefills = []
            completed: Completed = []
            admit_waiting(client, client.max_num_batched_tokens, prefills, completed, with_decodes=False)
            if prefills:
                client.commit_step(prefills, 0, completed)
                return True
        return decode_all(client)
