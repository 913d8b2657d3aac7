"""The naive measure of a client's known work, looked up at any instant of a finished naive run.

It is what a router may know: of each unfinished request the tokens that no plan has scheduled yet (its prompt,
or all of its present sequence after a preemption), or one where that is computed and it is decoding.
"""

from __future__ import annotations

from bisect import bisect_left
from unittest.mock import patch

import oracles.llm_client
from oracles.llm_client import OraclePolicy, OracleRequest, simulate_llm_client
from oracles.llm_scheduler import StepScheduler
from oracles.llm_sequence import Plan, Sequence

from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.units import PS_PER_NS


class KnownWork:
    """A naive run of one client, and the unscheduled tokens of its sequences after every plan."""

    def __init__(self, spec: LLMClientSpec, requests: list[OracleRequest], policy: OraclePolicy) -> None:
        planned_ps: list[int] = []
        self._planned_ps = planned_ps
        self._unscheduled: list[dict[int, int]] = []
        unscheduled = self._unscheduled
        ingest_ns = spec.cost.ingest_ns

        class Watched(StepScheduler):
            now_ps = 0

            def plan(self) -> Plan:
                # Nothing is planned at an instant at which no step ended and nobody arrived.
                for sequence in self.queue.members:
                    visible_ps = (sequence.request.arrival_ns + ingest_ns) * PS_PER_NS
                    self.now_ps = max(self.now_ps, visible_ps)
                plan = super().plan()
                planned_ps.append(self.now_ps)
                unscheduled.append({s.index: _unscheduled(s) for s in self.running + self.queue.members})
                return plan

            def deliver(self, plan: Plan, now_ps: int) -> None:
                self.now_ps = now_ps
                super().deliver(plan, now_ps)

        with patch.object(oracles.llm_client, "build_scheduler", Watched):
            self._result = simulate_llm_client(spec, requests, policy)
        self._requests = requests

    def before(self, now_ns: int, submitted: int) -> int:
        """Return the known work of the first ``submitted`` requests as left by all that came before ``now_ns``."""
        now_ps = now_ns * PS_PER_NS
        plan = bisect_left(self._planned_ps, now_ps) - 1
        known = self._unscheduled[plan] if plan >= 0 else {}
        return sum(
            known.get(index, self._requests[index].prompt)
            for index in range(submitted)
            if self._result.finish_ps[index] >= now_ps
        )


def _unscheduled(sequence: Sequence) -> int:
    return 1 if sequence.last_token_in_flight else sequence.length - sequence.computed
