"""The naive scheduler with LoRA adapters: who has a place is counted anew from the running sequences.

A waiting request is passed over, and the next one has its turn, while as many adapters as there are places are those
of sequences that run in this step, and its own is none of them (vLLM V1, ``max_loras``). Where an adapter comes into
use that has no place, the one that has been idle the longest loses its own, on the GPUs as in host memory. Loading
lengthens the step of the plan that admits. A sequence runs until the step that computes its last token is planned.
"""

from __future__ import annotations

from collections.abc import Iterator

from oracles.llm_prefix_cache import Block
from oracles.llm_scheduler import StepScheduler
from oracles.llm_sequence import OraclePolicy, Plan, Sequence

from hermes_flow.program.pools import LLMClientSpec


class AdapterScheduler(StepScheduler):
    """A scheduler that knows which adapters lie where; ``gpu`` and ``host`` are in the order of their last use."""

    def __init__(self, spec: LLMClientSpec, policy: OraclePolicy) -> None:
        super().__init__(spec, policy)
        assert spec.adapters is not None
        self.adapters = spec.adapters
        self.gpu: list[int] = []
        self.host: list[int] = []
        self.over: list[Sequence] = []  # their last token is planned
        self.loads = 0
        self.reads = 0

    def in_use(self) -> set[int]:
        using = [sequence for sequence in self.running if sequence not in self.over]
        return {sequence.request.adapter for sequence in using if sequence.request.adapter >= 0}

    def plan(self) -> Plan:
        self.loading_ps = 0
        plan = super().plan()
        plan.load_ps = self.loading_ps
        plan.adapters = len(self.in_use())
        prefilled = [sequence for sequence in plan.emitting if sequence not in plan.decoding]
        for sequence in plan.decoding + prefilled:
            if sequence.last_token_in_flight and sequence not in self.over:
                self.over.append(sequence)
                self._idle(sequence)
        return plan

    def extra_ps(self, plan: Plan) -> int:
        """What the matrices of the adapters of a step take."""
        tokens = sum(plan.tokens.values())
        if not tokens or not plan.adapters:
            return 0
        return self.adapters.tokens_ps[tokens] + (plan.adapters - 1) * self.adapters.each_ps

    def _in_order(self) -> Iterator[Sequence]:  # type: ignore[override]
        for sequence in super()._in_order():
            used, own = self.in_use(), sequence.request.adapter
            if own < 0 or own in used or len(used) < self.adapters.slots:
                yield sequence

    def _admit(self, sequence: Sequence, hits: list[Block], plan: Plan) -> None:
        self._load(sequence.request.adapter)
        super()._admit(sequence, hits, plan)

    def _swap_in(self, sequence: Sequence, plan: Plan) -> bool:
        before = self.in_use()
        if not super()._swap_in(sequence, plan):
            return False
        self._load(sequence.request.adapter, before)
        return True

    def _release(self, sequence: Sequence) -> None:
        super()._release(sequence)
        if sequence not in self.over and sequence not in self.running:
            self._idle(sequence)

    def _idle(self, sequence: Sequence) -> None:
        """Let the sequence's adapter be the one used last, where no other sequence uses it."""
        own = sequence.request.adapter
        if own >= 0 and own not in self.in_use():
            for place in (self.gpu, self.host):
                place.remove(own)
                place.append(own)

    def _load(self, adapter: int, used: set[int] | None = None) -> None:
        used = self.in_use() if used is None else used
        if adapter < 0 or adapter in used:
            return
        if (
            self._missing(adapter, self.host, self.adapters.host_slots, used)
            and self.adapters.host_slots is not None
        ):
            self.loading_ps += self.adapters.smaller.get(adapter, (0, self.adapters.read_ps))[1]
            self.reads += 1
        if self._missing(adapter, self.gpu, self.adapters.slots, used):
            self.loading_ps += self.adapters.smaller.get(adapter, (self.adapters.load_ps, 0))[0]
            self.loads += 1

    @staticmethod
    def _missing(adapter: int, place: list[int], most: int | None, used: set[int]) -> bool:
        """Put an adapter into a place where it is not, in the place of the one that was used the longest ago."""
        if adapter in place:
            return False
        if most is not None and len(place) == most:
            place.remove(next(one for one in place if one not in used))
        place.append(adapter)
        return True
