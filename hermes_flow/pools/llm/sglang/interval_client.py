"""A client of SGLang that looks for new requests only after some steps, as with ``scheduler_recv_interval``.

Before each decision a counter grows by the weight of the step that was decided before it. Only when it reaches the
interval are the requests (and the requests taken back) received that have come so far, and it begins again at 0. A
step with prompts weighs more than any interval, so that its successor always looks. With nothing to run the real
loop looks thousands of times a second: here it sees a request at once.
"""

from __future__ import annotations

from collections.abc import Callable

from hermes_flow.pools.client import Calls
from hermes_flow.pools.llm.deciding_client import DecidingClient
from hermes_flow.pools.llm.handing_client import ReceivingClient
from hermes_flow.pools.llm.sglang.scheduler import SGLangScheduler
from hermes_flow.pools.llm.sglang.sequence import Sequence
from hermes_flow.pools.llm.tasks import LLMTasks
from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.units import NEVER, PS_PER_NS

# source: SGLang 0.5, environ.py, SGLANG_SCHEDULER_RECV_SKIPPER_WEIGHT_DEFAULT for steps with prompts, and ..._DECODE
# and ..._NONE for steps of decodes and for none
WEIGHT_WITH_PROMPTS = 1000
WEIGHT_OF_OTHERS = 1


class IntervalClient(DecidingClient):
    """One client that computes prompts and decodes; arrivals wait in the inbox until a decision looks for them.

    ``_passed`` is the counter. The class has no slots, so that a client that decodes alone can have its loop, too.
    """

    def __init__(
        self,
        index: int,
        spec: LLMClientSpec,
        tasks: LLMTasks,
        calls: Calls,
        scheduler: SGLangScheduler,
        sequence_of: Callable[[int], Sequence],
        interval: int,
    ) -> None:
        super().__init__(index, spec, tasks, calls, scheduler, sequence_of)
        self._interval = interval
        self._passed = 0
        self._prompts_ran = scheduler.prompts_ran

    def next_ns(self) -> int:
        """Return the instant of the next decision that may look for a request or has visible results."""
        if not self._notify:
            return NEVER
        at, arriving = self.plan_ps, self._inbox.queue
        if at >= NEVER:
            at = arriving[0][0] if arriving else NEVER
        elif not arriving:
            at = self._stretch_end_ps()
        return at // PS_PER_NS if at < NEVER else NEVER

    def _advance(self, until_ps: int) -> None:
        """Handle all decisions before ``until_ps``, and the arrivals that they look for."""
        arriving = self._inbox.queue
        while True:
            plan_ps = self.plan_ps
            if plan_ps >= NEVER:
                if not arriving or arriving[0][0] >= until_ps:
                    return
                self.plan_ps = max(arriving[0][0], self.tail_ps, self._decided_ps)
                self._passed = self._interval
                continue
            if plan_ps >= until_ps:
                return
            if self._equal_steps() and self._run_equally(until_ps):
                continue
            self._passed += WEIGHT_WITH_PROMPTS if self._prompts_ran() else WEIGHT_OF_OTHERS
            if self._passed >= self._interval:
                self._passed = 0
                self._receive(plan_ps)
            self._decide(plan_ps)

    def _receive(self, now_ps: int) -> None:
        arriving = self._inbox.queue
        while arriving and arriving[0][0] <= now_ps:
            at, task = arriving.popleft()
            if task < 0:
                self._see_withdrawal(~task, at)
            else:
                self._take_in(task, at)

    def _run_equally(self, until_ps: int) -> bool:
        """Make the decisions of the stretch that come before ``until_ps`` and before one that may find a request."""
        most = self._stretch
        if self._inbox.queue:
            most = min(most, self._interval - self._passed - WEIGHT_OF_OTHERS)
        steps = self._count_steps(most, until_ps)
        self._passed = (self._passed + steps * WEIGHT_OF_OTHERS) % self._interval
        return steps > 0


class IntervalReceivingClient(IntervalClient, ReceivingClient):
    """One client that decodes: it looks for requests so seldom, and for KV before each decision."""

    def next_ns(self) -> int:
        """Return the instant of the next decision that may look for a request or has visible results."""
        if self._notify or not self._asks:
            return super().next_ns()
        at, arriving = self.plan_ps, self._inbox.queue
        if at >= NEVER and arriving:
            at = arriving[0][0]
        return at // PS_PER_NS if at < NEVER else NEVER
