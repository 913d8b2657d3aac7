"""What a client has in hand at any instant of a finished naive run, counted sequence by sequence."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

import oracles.llm_client
from oracles.llm_client import OraclePolicy, OracleRequest, OracleResult, simulate_llm_client
from oracles.llm_pipeline import PipelineOracle, PipelineResult, simulate_pipeline
from oracles.llm_sequence import Plan, Sequence
from oracles.stepped_client import SteppedClient
from oracles.watched_client import GivenResult

from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.units import PS_PER_NS


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

    def __init__(
        self,
        spec: LLMClientSpec,
        requests: list[OracleRequest],
        policy: OraclePolicy,
        run: Callable[[], GivenResult] | None = None,
    ) -> None:
        """``run`` runs the naive client where KV comes or leaves, else it is run with the requests alone."""
        self._requests = requests
        self._static = spec.batching == "static"
        self._planned_ps: list[int] = []
        self._backlogs: list[dict[int, int]] = []  # after each plan: request → prompt tokens not scheduled
        self._gangs: list[dict[int, int]] = []  # after each plan: member of the gang → its longest answer
        self.result: OracleResult | PipelineResult | GivenResult
        if run is not None:
            ask = self._noting_stepped(SteppedClient._ask)
            plan = self._noting_pipeline(PipelineOracle.plan)
            with patch.object(SteppedClient, "_ask", ask), patch.object(PipelineOracle, "plan", plan):
                self.result = run()
        elif spec.pipeline_ranks > 1:
            with patch.object(PipelineOracle, "plan", self._noting_pipeline(PipelineOracle.plan)):
                self.result = simulate_pipeline(spec, requests, policy)
        else:
            build = partial(self._build, oracles.llm_client.build_scheduler)
            with patch.object(oracles.llm_client, "build_scheduler", build):
                self.result = simulate_llm_client(spec, requests, policy)

    def _noting_pipeline(self, plan: Any) -> Any:
        def noting(client: PipelineOracle, now_ps: int) -> Any:
            preempted = plan(client, now_ps)
            running = [sequence for part in client.parts for sequence in part.running]
            running += [*client.ready, *client.coming]
            self._note(now_ps, [*running, *client.queue.members], [])
            return preempted

        return noting

    def _noting_stepped(self, ask: Any) -> Any:
        def noting(client: SteppedClient, now_ps: int) -> Any:
            plan = ask(client, now_ps)
            own = client.scheduler
            self._note(now_ps, [*own.running, *own.ready, *own.coming, *own.queue.members], [])
            return plan

        return noting

    def _build(self, build: Any, spec: LLMClientSpec, policy: OraclePolicy) -> Any:
        """Return the naive scheduler, which notes what is left after each of its plans."""
        scheduler = build(spec, policy)
        plan, deliver = scheduler.plan, scheduler.deliver
        now_ps = 0

        def noting_plan() -> Plan:
            # Nothing is planned at an instant at which no step ended and nobody arrived.
            nonlocal now_ps
            waiting: list[Sequence] = scheduler.queue.members
            for sequence in waiting:
                now_ps = max(now_ps, (sequence.arrival_ns + spec.cost.ingest_ns) * PS_PER_NS)
            planned: Plan = plan()
            running, gang = getattr(scheduler, "running", []), getattr(scheduler, "gang", [])
            self._note(now_ps, [*running, *scheduler.queue.members], gang)
            return planned

        def noting_deliver(planned: Plan, at_ps: int) -> None:
            nonlocal now_ps
            now_ps = at_ps
            deliver(planned, at_ps)

        scheduler.plan, scheduler.deliver = noting_plan, noting_deliver
        return scheduler

    def _note(self, now_ps: int, known: list[Sequence], gang: list[Sequence]) -> None:
        self._planned_ps.append(now_ps)
        backlog = {sequence.index: _unscheduled(sequence) for sequence in known}
        self._backlogs.append(backlog | {member.index: 0 for member in gang})
        longest = max((member.request.output for member in gang), default=0)
        self._gangs.append({member.index: longest for member in gang})

    def before(self, now_ns: int, routed: Iterable[int]) -> InHand:
        """Return what the requests ``routed`` here are, as left by all that came before ``now_ns``."""
        now_ps = now_ns * PS_PER_NS
        requests, finish_ps = self._requests, self.result.finish_ps
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
            assert isinstance(self.result, OracleResult)
            return sum(step.end_ps < now_ps for step in self.result.steps if index in step.tokens)
        here = sum(emitted < now_ps for emitted in self.result.emitted_ps[index])
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
