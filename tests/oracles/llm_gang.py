"""The naive scheduler of static batching: gangs that are padded, prefilled and decoded as one.

When nothing runs and requests wait, a gang forms from them in the order of the queue; the first that does not
fit ends it. With ``longest`` the longest prompt among the members, g members fit where
- g ≤ max_num_seqs;
- g·longest ≤ max_num_batched_tokens, except for a gang of one;
- each member gets ceil((longest + its own output) / block_size) blocks: a newcomer with a longer prompt raises
  the share of all.

The gang's first step is a prefill of g prompts of ``longest`` tokens, which emits everyone's first token; then
come max(output) − 1 decode steps of g sequences, the k-th over g·(longest + k) computed tokens, counted from
0: padding and finished members take part to the end. A step's recorded tokens include both. All members finish
with the gang's last step, and their blocks are free then. Nobody is ever preempted, whatever the mode.
"""

from __future__ import annotations

from oracles.llm_prefix_cache import BlockPool
from oracles.llm_queue import WaitingQueue
from oracles.llm_sequence import OraclePolicy, Plan, Sequence

from hermes_flow.program.pools import LLMClientSpec


class GangScheduler:
    """Who waits, the members of the present gang, and how many of its steps are planned and delivered."""

    def __init__(self, spec: LLMClientSpec, policy: OraclePolicy) -> None:
        if policy.prefix_cache:
            raise ValueError("static batching has no prefix cache")
        self.spec = spec
        self.pool = BlockPool(spec.kv_blocks)
        self.queue = WaitingQueue(policy)
        self.gang: list[Sequence] = []
        self.planned = 0
        self.delivered = 0

    @property
    def idle(self) -> bool:
        """Whether nobody waits and nobody runs."""
        return not self.queue.members and not self.gang

    def plan(self) -> Plan:
        """Decide the gang's next step, the first of a new gang, or nothing: all steps of a gang are planned."""
        plan = Plan()
        if not self.gang:
            self._form_gang()
        if self.gang and self.planned < self._steps():
            longest = _longest_prompt(self.gang)
            if self.planned == 0:
                plan.prefills = [(longest, 0) for _ in self.gang]
                plan.tokens = {member.index: longest for member in self.gang}
            else:
                plan.decode_contexts = [longest + self.planned - 1 for _ in self.gang]
                plan.tokens = {member.index: 1 for member in self.gang}
            self.planned += 1
        plan.used_blocks = self.pool.used
        return plan

    def deliver(self, plan: Plan, now_ps: int) -> None:
        """End a step of the gang; the last one ends the gang."""
        self.delivered += 1
        if self.delivered == 1:
            for member in self.gang:
                member.first_ps = now_ps
        if self.delivered == self._steps():
            for member in self.gang:
                member.finish_ps = now_ps
                self.pool.release(member.blocks)
                member.blocks = []
            self.gang = []

    def withdraw(self, sequence: Sequence) -> None:
        """Drop a sequence that was taken back; a member of the gang stays in it to its end."""
        if sequence in self.queue.members:
            self.queue.remove(sequence)
            sequence.gone = True

    def _form_gang(self) -> None:
        self.planned = self.delivered = 0
        for sequence in self.queue.in_order():
            if not self._fit([*self.gang, sequence]):
                break
            self.queue.remove(sequence)
            self.gang.append(sequence)
        for member in self.gang:
            member.blocks = self.pool.take(self._share(member, self.gang))

    def _fit(self, members: list[Sequence]) -> bool:
        padded = len(members) * _longest_prompt(members)
        return (
            len(members) <= self.spec.max_num_seqs
            and (padded <= self.spec.max_num_batched_tokens or len(members) == 1)
            and sum(self._share(member, members) for member in members) <= self.spec.kv_blocks
        )

    def _share(self, member: Sequence, members: list[Sequence]) -> int:
        tokens = _longest_prompt(members) + member.request.output
        return -(-tokens // self.spec.block_size)

    def _steps(self) -> int:
        return max(member.request.output for member in self.gang)


def _longest_prompt(members: list[Sequence]) -> int:
    return max(member.request.prompt for member in members)
