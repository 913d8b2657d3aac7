"""LLM clients of ranks with data-parallel attention whose schedulers decide every step at the same time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from hermes_flow.pools.client import Calls
from hermes_flow.pools.llm.decided_steps import DecidedSequence, Step
from hermes_flow.pools.llm.deciding_client import DecidingClient
from hermes_flow.pools.llm.handing_client import ReceivingClient, SendingClient
from hermes_flow.pools.llm.ranked_scheduler import RankedScheduler
from hermes_flow.pools.llm.step_log import segment_rows, single_steps
from hermes_flow.pools.llm.tasks import LLMTasks
from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.units import NEVER
from hermes_flow.recording.recording import ClientRecord


class StepsOfRanks(DecidingClient):
    """A client whose steps last as long as that of the slowest rank, and the experts that all ranks share.

    A stretch of equal decode steps ends before another rank becomes the slowest. The class stands before that of a
    client with one scheduler, so it can have no slots of its own.
    """

    def __init__(
        self,
        index: int,
        spec: LLMClientSpec,
        tasks: LLMTasks,
        calls: Calls,
        scheduler: RankedScheduler,
        sequence_of: Callable[[int], DecidedSequence],
    ) -> None:
        super().__init__(index, spec, tasks, calls, scheduler, sequence_of)
        self._ranked = scheduler
        self._runs: dict[int, int] = {}  # start of a stretch → by how much each of its steps is longer

    def _duration_ps(self, step: Step) -> int:
        cost = self._cost
        of_rank, own = cost.of_rank, []
        for part in step.parts:
            chunks = [(prefill.tokens, prefill.context) for prefill in part.prefills]
            tokens = len(part.decodes) + sum([chunk for chunk, _ in chunks])
            own.append((of_rank.step_ps(chunks, len(part.decodes), part.context), tokens))
        experts = cost.experts_ps[sum([tokens for _, tokens in own])] if cost.experts_ps else 0
        return max([local + cost.beside_experts_ps(experts, tokens) for local, tokens in own])

    def _paces(self) -> list[tuple[int, int]]:
        """Return the time of a step with each rank's next decodes, and by how much each later one is longer."""
        cost = self._cost
        of_rank = cost.of_rank
        experts = cost.experts_ps[len(self._ranked.running)] if cost.experts_ps else 0
        return [
            (
                of_rank.decode_ps[decodes]
                + of_rank.context_ps * context
                + cost.beside_experts_ps(experts, decodes),
                of_rank.context_ps * decodes,
            )
            for decodes, context in self._ranked.decode_paces
        ]

    def _pace(self) -> tuple[int, int]:
        return max(self._paces())

    def _equal_steps(self) -> int:
        if self._stretch >= 0:
            return self._stretch
        steps = super()._equal_steps()
        if steps:
            paces = self._paces()
            first, growth = max(paces)
            for other, faster in paces:
                if faster > growth:
                    steps = min(steps, (first - other) // (faster - growth) + 1)
            self._stretch = steps
        return steps

    def _run_equally(self, until_ps: int) -> bool:
        self._report(self.plan_ps)
        if self._ranked.report_ps < until_ps:
            until_ps = self._ranked.report_ps
        start = self.plan_ps if self._in_flight is None else self._in_flight.end_ps
        growth = self._pace()[1]
        ran = super()._run_equally(until_ps)
        if ran:
            self._runs[start] = growth
        return ran

    def _decide(self, now_ps: int) -> None:
        self._report(now_ps)
        super()._decide(now_ps)

    def _take_in(self, task: int, at_ps: int) -> None:
        if self.plan_ps >= NEVER:  # nothing runs, so that the ranks answer at once
            self._report(at_ps)
        super()._take_in(task, at_ps)

    def _report(self, now_ps: int) -> None:
        """Let the controller learn of the ranks what it asked for since they were last asked, before a decision."""
        if now_ps >= self._ranked.report_ps:
            self._ranked.report(now_ps)

    def record(self, pool: int) -> ClientRecord:
        """Return the steps of the client and their totals."""
        return replace(super().record(pool), segments=single_steps(segment_rows(self._log, []), self._runs))


class RankedDecidingClient(StepsOfRanks):
    """One client that prefills and decodes."""


class RankedSendingClient(StepsOfRanks, SendingClient):
    """One client that prefills; each rank holds the KV of its prompts until it is let go."""


class RankedReceivingClient(StepsOfRanks, ReceivingClient):
    """One client that decodes; each rank gives memory to its own requests."""


def client_of_side(side: Literal["both", "prefill", "decode"]) -> type[StepsOfRanks]:
    """Return the kind of client for a side of the work."""
    if side == "both":
        return RankedDecidingClient
    return RankedSendingClient if side == "prefill" else RankedReceivingClient
