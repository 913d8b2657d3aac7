"""The naive LLM client of several pipeline ranks, driven from outside as ``SteppedClient`` is."""

from __future__ import annotations

from oracles.llm_pipeline import PipelineOracle
from oracles.llm_sequence import OraclePolicy, OracleRequest, Sequence
from oracles.stepped_client import sequence_of

from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.units import PS_PER_NS


class SteppedPipeline:
    """One client; ``grants`` of its micro-batches are not noted."""

    def __init__(self, spec: LLMClientSpec, policy: OraclePolicy, requests: list[OracleRequest]) -> None:
        self.spec = spec
        self.client = PipelineOracle(spec, policy)
        for part in self.client.parts:
            part.holds = True
        self.sequences = [sequence_of(index, request) for index, request in enumerate(requests)]
        self._arriving: list[tuple[int, Sequence, bool]] = []
        self._try_ps: int | None = None
        self._planned_ps = -1

    @property
    def busy_ps(self) -> int:
        """How long all ranks worked, together."""
        return sum(leave - enter for passage in self.client.passages for enter, leave in passage.stages)

    def submit(self, index: int, now_ns: int) -> None:
        """Let a request arrive."""
        self.sequences[index].arrival_ns = now_ns
        self._arrive((now_ns + self.spec.cost.ingest_ns) * PS_PER_NS, self.sequences[index], False)

    def bring(self, index: int, now_ns: int) -> None:
        """Let the KV of a request arrive that has blocks for it; the plan that gave them does not see it."""
        self._arrive(max(now_ns * PS_PER_NS, self._planned_ps + 1), self.sequences[index], True)

    def let_go(self, index: int, now_ns: int) -> None:
        """Free the blocks of a prompt that nobody awaits any more."""
        if not self.client.parts[0].let_go(index):
            self.sequences[index].request.awaited = False
        elif self.client.queue.members and len(self.client.in_flight) < self.spec.pipeline_ranks:
            self._wake(max(now_ns * PS_PER_NS, self._planned_ps))

    def next_ps(self) -> int | None:
        """Return when something happens here, unless something arrives before."""
        instants = [passage.exit_ps for passage in self.client.in_flight[:1]]
        instants += [at for at, _, _ in self._arriving[:1]]
        instants += [at for at in [self._try_ps] if at is not None]
        return min(instants, default=None)

    def run_until(self, until_ps: int) -> None:
        """Do all that happens before ``until_ps``."""
        client = self.client
        while (now_ps := self.next_ps()) is not None and now_ps < until_ps:
            while self._arriving and self._arriving[0][0] == now_ps:
                self._take_in(*self._arriving.pop(0))
            planning = self._try_ps == now_ps
            while client.in_flight and client.in_flight[0].exit_ps == now_ps:
                passage = client.in_flight.pop(0)
                client.parts[passage.micro_batch].deliver(passage.plan, now_ps)
                planning = True
            if planning:
                self._plan(now_ps)

    def _plan(self, now_ps: int) -> None:
        self._try_ps = None
        self._planned_ps = now_ps
        before = len(self.client.passages)
        preempted = self.client.plan(now_ps)
        for passage in self.client.passages[before:]:
            for index in passage.plan.tokens:
                if self.sequences[index].start_ps < 0:
                    self.sequences[index].start_ps = passage.start_ps
        if preempted and not self.client.in_flight:
            self._wake(now_ps)

    def _arrive(self, at_ps: int, sequence: Sequence, with_kv: bool) -> None:
        place = len(self._arriving)
        while place and self._arriving[place - 1][0] > at_ps:
            place -= 1
        self._arriving.insert(place, (at_ps, sequence, with_kv))

    def _take_in(self, at_ps: int, sequence: Sequence, with_kv: bool) -> None:
        if with_kv:
            self.client.parts[0].arrive_kv(sequence)
        else:
            self.client.queue.arrive(sequence)
        if len(self.client.in_flight) < self.spec.pipeline_ranks:
            self._wake(at_ps)

    def _wake(self, at_ps: int) -> None:
        self._try_ps = at_ps if self._try_ps is None else min(self._try_ps, at_ps)
