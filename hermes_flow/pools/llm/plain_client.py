"""A client whose scheduler has nothing but the plain case to mind plans its steps in one loop (``plain_loop.py``).

A plain client plans by chunked prefill, in order of arrival, and counts its blocks or remembers prefixes. Then nearly
all that a plan reads and changes are a few numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hermes_flow.pools.llm.batching.chunk_steps import plan_chunks
from hermes_flow.pools.llm.earliest_end import EarliestEnd
from hermes_flow.pools.llm.plain_loop import DONE, LATEST_PS, NEAR_PS, PlainLoop
from hermes_flow.pools.llm.promised_ends import PromisedEnds
from hermes_flow.pools.llm.scheduler import BatchingPolicy
from hermes_flow.pools.llm.tasks import LLMTasks
from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.units import NEVER, PS_PER_NS

# Where what is rare comes again and again, the loop is tried at growing distances.
_FIRST_PAUSE_PS, _LONGEST_PAUSE_PS = 10**9, 10**13


def is_plain(spec: LLMClientSpec, tasks: LLMTasks, policy: BatchingPolicy) -> bool:
    """Return whether ``PlainClient`` can stand in for ``LLMClient``."""
    own_blocks = spec.sequence_blocks or spec.preemption == "none" or spec.offload
    moves = tasks.leaving or tasks.receives or tasks.images is not None or tasks.adapter
    cost = spec.cost
    rare = spec.speculation is not None or cost.replayed_ps or cost.attention_ranks > 1 or cost.scans
    ordered = spec.packing or spec.kv_layers or cost.tokens_per_decode > 1
    tokens = spec.kv_blocks * spec.block_size  # a run has fewer steps
    too_long = tokens * (max(cost.decode_ps) + cost.context_ps * tokens) >= NEAR_PS
    return not (own_blocks or moves or rare or ordered or too_long) and policy.plan is plan_chunks


class PlainClient(PlainLoop):
    """An ``LLMClient`` with a ``PlainBatch`` or ``CachingBatch``, and tasks in order of arrival; see ``is_plain``."""

    __slots__ = ()

    @property
    def takes_known(self) -> bool:
        """Whether tasks may come ahead of their instants, which nobody who looks at loads expects."""
        return not self._notify and self._load is None

    @property
    def takes_promises(self) -> bool:
        """Whether ``promise`` may be called: nobody looks at the client but for answers that end."""
        return type(self._earliest) is EarliestEnd and self._load is None

    def promise(self, at_ns: Sequence[int]) -> None:
        """Take note that its tasks come one by one, none earlier than at its instant; see ``PoolClient``."""
        assert self._earliest is not None
        ingest_ns = self._inbox.ingest_ns
        self._earliest = PromisedEnds(self._earliest, [(at + ingest_ns) * PS_PER_NS for at in at_ns])

    def hand_on(self, take: Callable[[int, int], None]) -> None:
        """Hand answers on as soon as their ends are known; see ``PoolClient``."""
        assert isinstance(self._earliest, PromisedEnds)
        self._earliest.hand_on(take)

    def _advance(self, until_ps: int, *, planning: bool = True) -> None:
        """Handle all arrivals and plans before ``until_ps``; see ``LLMClient``."""
        if not planning or self._is_far():
            super()._advance(until_ps, planning=planning)
            return
        pause_ps = 1
        while True:
            plans = self._advance_plainly(until_ps if until_ps < LATEST_PS else LATEST_PS)
            if plans == DONE:
                if until_ps > LATEST_PS:
                    super()._advance(until_ps)
                return
            pause_ps = 1 if plans else min(max(2 * pause_ps, _FIRST_PAUSE_PS), _LONGEST_PAUSE_PS)
            rare_ps = self.plan_ps
            if self.arriving and self.arriving[0][0] < rare_ps:
                rare_ps = self.arriving[0][0]
            if rare_ps + pause_ps >= until_ps:
                super()._advance(until_ps)
                return
            super()._advance(rare_ps + pause_ps)

    def advance_to_end(self, now_ns: int) -> None:
        """Make all plans before ``now_ns``, and end a run that is over within this nanosecond; see ``LLMClient``."""
        until_ps = now_ns * PS_PER_NS
        if until_ps > NEAR_PS or self._advance_plainly(until_ps) != DONE:
            self._advance(until_ps)
        if self.run_steps and self.plan_ps < until_ps + PS_PER_NS:
            self._advance(until_ps + PS_PER_NS, planning=False)

    def _is_far(self) -> bool:
        """Return whether a time is beyond those that the loop can hold."""
        if self.arriving and self.arriving[-1][0] >= LATEST_PS:
            return True
        return self.tail_ps >= LATEST_PS or (self.plan_ps >= LATEST_PS and self.plan_ps != NEVER)
