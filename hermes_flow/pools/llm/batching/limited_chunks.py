"""Chunked prefill with a limit on the tokens of one prompt in a step, as vLLM's ``long_prefill_token_threshold``.

Several prompts may then be in progress at once, with decoding sequences between them, so running sequences are gone
through one by one while one is. All of them have their turn in every step: none takes more tokens than in the step
before, except the last one, whose prompt the budget has cut.
"""

from __future__ import annotations

from typing import ClassVar, Protocol, cast

from hermes_flow.errors import InternalError
from hermes_flow.pools.llm.batching.admission import admit_waiting
from hermes_flow.pools.llm.scheduler import UNLIMITED, Completed, Prefills, Scheduler
from hermes_flow.program.quick_dataclass import dataclass


class OneByOne(Protocol):
    """What a batch has besides, whose decoding sequences can be planned one by one."""

    def decodes_next(self, admission: int) -> bool:
        """Return whether a sequence that has its prompt computed takes part in the next decode."""

    def take_or_preempt_one(self, admission: int, preempted: list[int]) -> bool:
        """Take the block of one decoding sequence; False where it had to go for it itself."""

    def all_taken(self) -> None:
        """Note that all decoding sequences have their blocks of the next decode."""


@dataclass(frozen=True, slots=True)
class LimitedChunks:
    """The policy ``chunked``, but a prompt gets at most ``longest`` tokens in a step."""

    gang: ClassVar[bool] = False
    whole_prompts: ClassVar[bool] = False
    longest: int

    def plan(self, client: Scheduler) -> bool:
        """Plan one step, or a decode run where no prompt can join."""
        batch = client.batch
        if not client.waiting and not batch.prefilling:
            if not batch.decodes:
                return False
            if batch.free >= batch.decodes or batch.free >= batch.needed_blocks():
                client.commit_decodes(UNLIMITED)
                return True
        preempted: list[int] = []
        prefills: Prefills = []
        completed: Completed = []
        if batch.prefilling:
            budget = self._go_through(client, prefills, completed, preempted)
        else:
            batch.take_or_preempt(preempted)
            budget = client.max_num_batched_tokens - batch.decodes
        if preempted:
            client.requeue(preempted)
        elif client.waiting:
            admit_waiting(client, budget, prefills, completed, cut_last=True, longest_chunk=self.longest)
        if prefills or batch.copy_ps or (preempted and batch.decodes):
            client.commit_step(prefills, batch.decodes, completed)
        elif batch.decodes:
            client.commit_decodes(1 if client.deliveries_pending else UNLIMITED)
        else:
            return False
        return True

    def _go_through(
        self, client: Scheduler, prefills: Prefills, completed: Completed, preempted: list[int]
    ) -> int:
        """Plan the running sequences in order of admission; return the budget that is left."""
        batch, one_by_one = client.batch, cast(OneByOne, client.batch)
        budget = client.max_num_batched_tokens
        for admission, task in list(batch.running.items()):
            if admission not in batch.running:
                break
            computed = batch.prefilling.get(admission)
            if computed is None:
                if one_by_one.decodes_next(admission) and one_by_one.take_or_preempt_one(
                    admission, preempted
                ):
                    budget -= 1
                continue
            total = client.tasks.prompt[task] + client.tasks.generated[task]
            chunk = min(total - computed, self.longest, budget)
            if chunk <= 0:
                continue
            while batch.blocks_to_continue(computed, chunk) > batch.free:
                if batch.reclaim(-1):
                    continue
                if batch.preempt_last(preempted) == admission:
                    break
            if admission not in batch.running:
                break
            batch.take_chunk(admission, computed, chunk)
            prefills.append((chunk, computed))
            budget -= chunk
            if computed + chunk == total:
                del batch.prefilling[admission]
                completed.append((admission, task))
            else:
                batch.prefilling[admission] = computed + chunk
        if budget < 0:
            raise InternalError("decoding sequences were left without budget")
        one_by_one.all_taken()
        return budget
