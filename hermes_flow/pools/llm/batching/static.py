"""Static batching: gangs of sequences that start and end together (Orca, 2022, describes them)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hermes_flow.pools.llm.batching.policy import batching_policies
from hermes_flow.pools.llm.scheduler import GangScheduler


@batching_policies.register("static")
@dataclass(frozen=True, slots=True)
class Static:
    """A gang is padded to its longest prompt, prefilled, and decoded until its last member ends.

    Nobody joins meanwhile, and every member is returned when the gang ends. A gang takes waiting prompts in
    order while seats last, the padded prompts fit ``max_num_batched_tokens`` (the first always does), and the
    blocks of all members, padded prompt and whole answer, are free.
    """

    gang: ClassVar[bool] = True
    whole_prompts: ClassVar[bool] = True

    def plan(self, client: GangScheduler) -> bool:
        """Plan a whole gang, from prefill to end."""
        if client.deliveries_pending:
            return False
        gang, longest, blocks = _gang(client)
        if not gang:
            return False
        batch = client.batch
        members = []
        for task in gang:
            client.waiting.popleft()
            prompt = client.tasks.prompt[task]
            members.append((batch.admit(task, batch.find(task), prompt, client.tail_ps), task))
        batch.hold_gang(gang, blocks)
        client.commit_gang(members, longest)
        return True


def _gang(client: GangScheduler) -> tuple[list[int], int, int]:
    """Return the tasks at the head of the queue that make a gang, its longest prompt and its blocks."""
    tasks = client.tasks
    gang: list[int] = []
    longest = blocks = 0
    for task in client.waiting:
        if len(gang) == client.max_num_seqs:
            break
        padded = max(longest, tasks.prompt[task])
        if gang and padded * (len(gang) + 1) > client.max_num_batched_tokens:
            break
        size = client.batch.block_size
        needed = sum(-(-(padded + tasks.output[member]) // size) for member in (*gang, task))
        if needed > client.batch.free:
            break
        gang.append(task)
        longest, blocks = padded, needed
    return gang, longest, blocks
