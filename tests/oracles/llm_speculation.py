"""The naive scheduler with speculative decoding: which sequences gain how many tokens in a step.

A decoding sequence has ``cost.tokens_per_decode`` tokens in a step, those drafted and the one before them, and they
take as many of the token budget (llm_scheduler.py). What of them is accepted is not drawn but follows the mean: after
n planned steps that decode, every sequence that took part in all of them has gained floor(n·e) tokens, with e the
expected tokens of a step (``spec.speculation``, a fraction ≥ 1). So the n-th such plan lets every decoding sequence
gain floor(n·e) − floor((n − 1)·e) tokens, all of them at the end of its step; one that misses fewer takes those and
ends. A sequence whose prefill ends in the step emits its one token.

The first token of the gain is scheduled as ever, preempting where blocks lack. The others come one after the other,
behind all else that the plan does: another one for every decoding sequence that still misses any, if the blocks for
all of them are free. Else the step gains no more; n counts on all the same.

Tokens are delivered sequence by sequence, in the order in which the plan scheduled them.
"""

from __future__ import annotations

from fractions import Fraction
from math import ceil, floor

from oracles.llm_scheduler import StepScheduler
from oracles.llm_sequence import OraclePolicy, Plan, Sequence

from hermes_flow.program.pools import LLMClientSpec


class SpeculatingScheduler(StepScheduler):
    """A step scheduler whose decodes gain several tokens."""

    def __init__(self, spec: LLMClientSpec, policy: OraclePolicy) -> None:
        super().__init__(spec, policy)
        assert spec.speculation is not None
        self.expected = Fraction(*spec.speculation)
        self.decoding_plans = 0
        self.most_in_flight = ceil(self.expected) * (1 + spec.lookahead)

    def plan(self) -> Plan:
        """Decide one step, further tokens of its decodes included."""
        plan = super().plan()
        if not plan.decode_contexts:
            return plan
        self.decoding_plans += 1
        gain = floor(self.decoding_plans * self.expected) - floor((self.decoding_plans - 1) * self.expected)
        gained = {id(sequence): 1 for sequence in plan.emitting}
        for _ in range(gain - 1):
            gaining = [sequence for sequence in plan.decoding if not sequence.last_token_in_flight]
            if sum(self._missing_blocks(sequence) for sequence in gaining) > len(self.pool.free):
                break
            for sequence in gaining:
                sequence.blocks += self.pool.take(self._missing_blocks(sequence))
                sequence.computed += 1
                sequence.in_flight += 1
                gained[id(sequence)] += 1
        plan.emitting = [sequence for sequence in plan.emitting for _ in range(gained[id(sequence)])]
        plan.used_blocks = self.pool.used
        self._check(plan)
        return plan

    def _missing_blocks(self, sequence: Sequence) -> int:
        """Blocks to take for one more computed token."""
        return max(0, self._blocks_for(sequence.computed + 1) - len(sequence.blocks))
