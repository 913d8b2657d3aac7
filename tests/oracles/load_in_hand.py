"""What a client has in hand at any instant of a finished naive run, counted sequence by sequence."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import oracles.llm_client
from oracles.llm_client import OraclePolicy, OracleRequest, simulate_llm_client
from oracles.llm_gang import GangScheduler
from oracles.llm_scheduler import StepScheduler
from oracles.llm_sequence import Plan, Sequence

from hermes_flow.compiler.program import PS_PER_NS, LLMClientSpec


@dataclass(frozen=True)
class InHand:
    """Tasks and tokens of the unfinished requests, and of those that have finished."""

    unfinished: int
    input_tokens: int
    kv_tokens: int
    backlog_tokens: int
    work_left_tokens: int
    finished: int
    finished_tokens: int


class LoadInHand:
    """A naive run of one client: requests in order of arrival, those that come prefilled were routed before."""

    def __init__(self, spec: LLMClientSpec, requests: list[OracleRequest], policy: OraclePolicy) -> None:
        self._requests = requests
        self._static = spec.batching == "static"
        self._planned_ps: list[int] = []
        self._backlogs: list[dict[int, int]] = []  # after each plan: request → prompt tokens not scheduled
        self._gangs: list[dict[int, int]] = []  # after each plan: member of the gang → its longest answer
        with patch.object(oracles.llm_client, "_build_scheduler", self._watched(spec)):
            self._result = simulate_llm_client(spec, requests, policy)

    def _watched(self, spec: LLMClientSpec) -> type:
        scheduler: Any = GangScheduler if self._static else StepScheduler
        ours = self

        class Watched(scheduler):  # type: ignore[misc]
            now_ps = 0

            def plan(self) -> Plan:
                # Nothing is planned at an instant at which no step ended and nobody arrived.
                for sequence in self.queue.members:
                    visible_ps = (sequence.arrival_ns + spec.cost.ingest_ns) * PS_PER_NS
                    self.now_ps = max(self.now_ps, visible_ps)
                plan: Plan = super().plan()
                gang: list[Sequence] = getattr(self, "gang", [])
                known = [*getattr(self, "running", []), *self.queue.members]
                ours._planned_ps.append(self.now_ps)
                backlog = {sequence.index: _unscheduled(sequence) for sequence in known}
                ours._backlogs.append(backlog | {member.index: 0 for member in gang})
                longest = max((member.request.output for member in gang), default=0)
                ours._gangs.append({member.index: longest for member in gang})
                return plan

            def deliver(self, plan: Plan, now_ps: int) -> None:
                self.now_ps = now_ps
                super().deliver(plan, now_ps)

        return Watched

    def before(self, now_ns: int, routed: Iterable[int]) -> InHand:
        """Return what the requests ``routed`` here are, as left by all that came before ``now_ns``."""
        now_ps = now_ns * PS_PER_NS
        requests, finish_ps = self._requests, self._result.finish_ps
        plan = bisect_left(self._planned_ps, now_ps) - 1
        backlogs = self._backlogs[plan] if plan >= 0 else {}
        gang = self._gangs[plan] if plan >= 0 else {}
        here = list(routed)
        over = [index for index in here if finish_ps[index] < now_ps]
        open_ = [index for index in here if finish_ps[index] >= now_ps]
        delivered = sum(self._delivered(index, now_ps) for index in open_)
        backlog = sum(backlogs.get(index, _to_compute(requests[index])) for index in open_)
        answers = sum(gang.get(index, requests[index].output) for index in open_)
        prompts = sum(requests[index].prompt for index in open_)
        return InHand(
            unfinished=len(open_),
            input_tokens=prompts,
            kv_tokens=prompts + delivered,
            backlog_tokens=backlog,
            work_left_tokens=backlog + answers - delivered,
            finished=len(over),
            finished_tokens=sum(requests[index].output for index in over),
        )

    def _delivered(self, index: int, now_ps: int) -> int:
        if self._static:  # a member that is through takes part to the end
            return sum(step.end_ps < now_ps for step in self._result.steps if index in step.tokens)
        here = sum(emitted < now_ps for emitted in self._result.emitted_ps[index])
        return here + self._requests[index].prefilled


def _to_compute(request: OracleRequest) -> int:
    return 1 if request.prefilled else request.prompt


def _unscheduled(sequence: Sequence) -> int:
    """Prompt tokens, or those of the present sequence after a preemption, that no plan has scheduled."""
    if sequence.last_token_in_flight:
        return 0
    if sequence.swapped:
        return 1
    waits = not sequence.blocks and not sequence.computed
    return sequence.length - sequence.computed if sequence.prefilling or waits else 0
