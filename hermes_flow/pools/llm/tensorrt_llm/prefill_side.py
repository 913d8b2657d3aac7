"""TensorRT-LLM's scheduler on a client that only prefills, and whose KV leaves for decode clients.

source: TensorRT-LLM, py_executor.py and scheduler/scheduler.py of _torch/pyexecutor (2026), context-only requests. A
request writes one token and gives its seat back then; its blocks stay until they are sent.
"""

from __future__ import annotations

from hermes_flow.pools.llm.tensorrt_llm.scheduler import TensorRTScheduler
from hermes_flow.pools.llm.tensorrt_llm.sequence import Sequence


class PrefillScheduler(TensorRTScheduler):
    """Requests write one token; the KV of their prompts is held for decode clients."""

    __slots__ = ()

    def hand_over(self, sequence: Sequence) -> None:
        """Let the blocks of a complete prompt be found, and its seat be free; the blocks stay until ``ended``."""
        self._computing.pop(sequence, None)
        self.pool.publish(sequence, sequence.computed)
        self.active.remove(sequence)

    def ended(self, sequence: Sequence) -> None:
        """Give the blocks of a sequence back."""
        if sequence in self.active:  # nobody awaits its KV
            super().ended(sequence)
        else:
            self.pool.give_back(sequence)

    def rest(self) -> bool:
        """Note that no step runs; blocks that are sent come back, so that nobody waits for ever."""
        return False

    def equal_decodes(self) -> int:
        """Return 0: nobody decodes."""
        return 0
