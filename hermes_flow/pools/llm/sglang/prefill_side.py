"""SGLang's scheduler on a client that only prefills, and whose KV leaves for decode clients.

source: SGLang, python/sglang/srt/disaggregation/prefill.py (2026). A request comes to the waiting queue when a decode
client has memory for its KV (the bootstrap queue before that is the machine's). It writes one token. Its KV stays
until all of it is sent (the inflight queue), and its row with it.
"""

from __future__ import annotations

from hermes_flow.pools.llm.sglang.admission import Admission
from hermes_flow.pools.llm.sglang.scheduler import SGLangScheduler
from hermes_flow.pools.llm.sglang.sequence import Sequence
from hermes_flow.pools.llm.sglang.token_pool import TokenPool
from hermes_flow.program.pools import SGLangSettings


class PrefillScheduler(SGLangScheduler):
    """Nobody runs but the prompts of a step; each has a row until its KV is gone."""

    __slots__ = ("_rows",)

    def __init__(self, settings: SGLangSettings, pool: TokenPool, max_running: int, *, overlap: bool) -> None:
        super().__init__(settings, pool, max_running, overlap=overlap)
        self._rows: set[Sequence] = set()  # those that have a row

    def hand_over(self, sequence: Sequence) -> None:
        """Let the KV of a complete prompt be found; it stays until ``ended``."""
        self.pool.publish(sequence, sequence.computed)

    def ended(self, sequence: Sequence) -> None:
        """Give what a sequence has computed to the tree, and free the rest and its row."""
        super().ended(sequence)
        self._rows.discard(sequence)

    def equal_decodes(self) -> int:
        """Return 0: nobody decodes."""
        return 0

    def _merge_last(self) -> None:
        """Let nobody decode."""
        self._full = False

    def _seats(self) -> int:
        return self.max_running - len(self._rows) + (self.chunked is not None)

    def _admit(self, admission: Admission, seats: int, whole: list[bool]) -> None:
        """Pick waiting prompts, each of which takes a row."""
        super()._admit(admission, seats, whole)
        self._rows.update(sequence for sequence, _ in admission.picked)
