"""The state of one request in vLLM's scheduler by priority."""

from __future__ import annotations

from hermes_flow.pools.llm.decided_steps import DecidedSequence
from hermes_flow.pools.llm.prefix_cache import Held


class Sequence(DecidedSequence):
    """One request and its blocks.

    ``expected`` tokens of its answer are delivered or in flight. It holds ``held`` blocks, of which ``named`` can be
    found by their content; ``known`` of its tokens had values when it was scheduled last. It is ``prefilling`` from
    its admission until its prompt is scheduled, which after a preemption has its answer so far in it. ``preempted``
    says that it was thrown out before.
    """

    __slots__ = ("expected", "held", "known", "named", "preempted", "prefilling", "priority")

    def __init__(self, task: int, prompt: int, output: int, priority: int) -> None:
        super().__init__(task, prompt, output, output)
        self.priority = priority
        self.expected = 0
        self.held = 0
        self.known = 0
        self.named = Held()
        self.prefilling = False
        self.preempted = False

    @property
    def whole(self) -> int:
        """Tokens of its prompt, and of its answer with the token in flight."""
        return self.prompt + self.expected

    @property
    def urgency(self) -> tuple[int, int]:
        """Its place among others, the most urgent lowest: its class, then its arrival."""
        return self.priority, self.arrival_ps
