"""A client of TensorRT-LLM that waits before each decision for new requests, as with ``batch_wait_timeout_ms``.

The wait begins when the engine asks its queue for requests: when the step before has begun (with overlap), when it is
over, or when the first request comes while nobody is active. It ends after the given time, or as soon as
``max_num_seqs`` requests and cancellations have come since the last decision. A step begins when the decision is made
and the step before is over, and its tokens are delivered no earlier than the decision after it.
"""

from __future__ import annotations

from collections.abc import Callable

from hermes_flow.pools.client import Calls
from hermes_flow.pools.llm.decided_steps import DecidedSequence
from hermes_flow.pools.llm.deciding_client import DecidingClient
from hermes_flow.pools.llm.tasks import LLMTasks
from hermes_flow.pools.llm.tensorrt_llm.scheduler import TensorRTScheduler
from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.units import NEVER


class WaitingClient(DecidingClient):
    """One client. ``_fetched`` requests have come since the last decision; ``_waits`` says that a wait has begun."""

    __slots__ = ("_fetched", "_most", "_wait_ps", "_waits")

    def __init__(
        self,
        index: int,
        spec: LLMClientSpec,
        tasks: LLMTasks,
        calls: Calls,
        scheduler: TensorRTScheduler,
        sequence_of: Callable[[int], DecidedSequence],
        wait_ps: int,
    ) -> None:
        super().__init__(index, spec, tasks, calls, scheduler, sequence_of)
        self._wait_ps = wait_ps
        self._most = spec.max_num_seqs
        self._counts = False  # no two decisions look alike
        self._waits = False
        self._fetched = 0

    def set_pace(self, factor: float, now_ns: int) -> None:
        """Let each step that is decided from now on take ``factor`` times its time; see ``PoolClient``."""
        super().set_pace(factor, now_ns)
        self._counts = False

    def _take_in(self, task: int, at_ps: int) -> None:
        super()._take_in(task, at_ps)
        self._fetch(at_ps)

    def _see_withdrawal(self, task: int, at_ps: int) -> None:
        known = task in self._sequences
        super()._see_withdrawal(task, at_ps)
        if known:
            self._fetch(at_ps)

    def _fetch(self, at_ps: int) -> None:
        self._fetched += 1
        if self._waits and self._fetched >= self._most:
            self.plan_ps = at_ps

    def _decide(self, now_ps: int) -> None:
        """Begin to wait, or decide where the wait is over."""
        if not self._waits and self._fetched < self._most:
            if self._scheduler.idle and not self._fetched:  # the wait begins with the first request
                self.plan_ps = NEVER
                return
            self._waits = True
            self.plan_ps = now_ps + self._wait_ps
            return
        self._waits = False
        self._fetched = 0
        before = self._in_flight
        if before is not None and before.end_ps < now_ps:
            before.end_ps = self.tail_ps = now_ps  # it is delivered now, and the next step begins
        super()._decide(now_ps)
