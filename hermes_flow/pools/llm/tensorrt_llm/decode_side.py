"""TensorRT-LLM's scheduler on a client that only decodes, and to which the KV of prompts is sent.

source: TensorRT-LLM, py_executor.py and scheduler/scheduler.py of _torch/pyexecutor (2026), generation-only requests.
A request asks for memory when its prompt is complete elsewhere. It gets the blocks of its prompt when those of its
whole limit are free. While its KV is on the way it has a seat, and the rest of its blocks is kept for it; this is
what the policy promises, though its source leaves such requests out. Its first token is delivered with the first
step that it takes part in.
"""

from __future__ import annotations

from hermes_flow.pools.llm.decided_steps import Step
from hermes_flow.pools.llm.tensorrt_llm.block_pool import BlockPool
from hermes_flow.pools.llm.tensorrt_llm.capacity import to_its_end
from hermes_flow.pools.llm.tensorrt_llm.scheduler import TensorRTScheduler
from hermes_flow.pools.llm.tensorrt_llm.sequence import Sequence
from hermes_flow.program.pools import TensorRTSettings


class DecodeScheduler(TensorRTScheduler):
    """``granted`` and ``joined`` are those that got memory, or their first token, in the last decision."""

    __slots__ = ("_coming", "granted", "joined")

    def __init__(
        self,
        settings: TensorRTSettings,
        pool: BlockPool,
        max_running: int,
        max_tokens: int,
        *,
        overlap: bool,
    ) -> None:
        super().__init__(settings, pool, max_running, max_tokens, overlap=overlap)
        self._coming: set[Sequence] = set()  # those that have memory, and whose KV is not here
        self.granted: list[Sequence] = []
        self.joined: list[Sequence] = []

    def arrived(self, sequence: Sequence) -> None:
        """Take note that the KV of a request is here."""
        self._coming.discard(sequence)
        sequence.generating = True

    def withdraw(self, sequence: Sequence) -> bool:
        """Remove a request that does not run; one that runs is cancelled after the next result."""
        if sequence in self.active and not sequence.out:
            self._coming.discard(sequence)
            self.active.remove(sequence)
            if sequence.begun:
                self.pool.give_back(sequence)
            return True
        return super().withdraw(sequence)

    def rest(self) -> bool:
        """Note that no step runs: requests wait for memory, or for their KV."""
        return False

    def fresh(self) -> int:
        """Return the number of requests that have not begun to decode."""
        return len(self._waiting) + sum([not one.out for one in self.active])

    def missing_tokens(self) -> int:
        """Return one for each request that has not begun: its prompt is computed elsewhere."""
        return self.fresh()

    def propose(self) -> tuple[Step, list[tuple[Sequence, int]]]:
        """Return the decodes of the next step; requests that ask may get memory, whether or not it is taken."""
        self.granted, self.joined = [], []
        proposed = super().propose()
        self.pool.note_peak()
        return proposed

    def take(self, step: Step, contexts: list[tuple[Sequence, int]]) -> Step | None:
        """Take the memory of a proposed step and return it; None if it is empty."""
        taken = super().take(step, contexts)
        for sequence in taken.decodes if taken is not None else ():
            if not sequence.out:
                sequence.out = 1
                self.joined.append(sequence)
        return taken

    def must_run(self) -> bool:
        """Return whether a request has its KV here; those that wait for memory or for KV count for nothing.

        source: _pad_attention_dp_dummy_request of py_executor.py
        """
        return any(one.generating for one in self.active)

    def equal_decodes(self) -> int:
        """Return how many of the next decisions are plain decode steps of the whole batch; see ``StepScheduler``."""
        if any(not one.out for one in self.active):
            return 0
        return super().equal_decodes()

    def _with_memory(self, step: Step) -> list[Sequence]:
        """Return the requests that decode, after those that ask have got the memory that they can have."""
        pool, most = self.pool, self.max_running
        active = [one for one in self.active if not self._completes(one) and one not in self._coming]
        decoding = [one for one in active if one.generating][:most]
        if decoding and self._settings.capacity == "static_batch":
            return decoding
        left, seats = pool.available, most - len(decoding)
        left -= sum([to_its_end(pool, one) for one in (*decoding, *self._coming)])
        for sequence in active:
            if sequence.generating:
                continue
            needed = to_its_end(pool, sequence)
            if not seats or needed > left:
                break
            left -= needed
            seats -= 1
            self._take(sequence)
        return decoding

    def _take(self, sequence: Sequence) -> None:
        """Give a request the blocks of its prompt, whose KV may come."""
        sequence.begun = True
        self.pool.fill(sequence)
        sequence.computed = sequence.prompt
        self._coming.add(sequence)
        self.granted.append(sequence)
