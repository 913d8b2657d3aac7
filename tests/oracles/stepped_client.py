"""The naive LLM client, driven from outside: what reaches it, and when, may depend on what it has done so far.

It makes the same steps as ``simulate_llm_client``. Arrivals come before whatever else is decided at their instant.
"""

from __future__ import annotations

from oracles.llm_adapters import AdapterScheduler
from oracles.llm_client import build_scheduler
from oracles.llm_gang import GangScheduler
from oracles.llm_sequence import OraclePolicy, OracleRequest, Plan, Sequence

from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.units import PS_PER_NS


class SteppedClient:
    """One client; ``steps`` has (start, end, plan) of each step, also of the one that runs.

    ``grants`` are the requests that got blocks for their KV and are not seen to yet.
    """

    def __init__(self, spec: LLMClientSpec, policy: OraclePolicy, requests: list[OracleRequest]) -> None:
        self.spec = spec
        self.policy = policy
        scheduler = build_scheduler(spec, policy)
        assert not isinstance(scheduler, GangScheduler), "a gang receives no KV"
        self.scheduler = scheduler
        self.sequences = [sequence_of(index, request) for index, request in enumerate(requests)]
        self.steps: list[tuple[int, int, Plan]] = []
        self.grants: list[tuple[Sequence, int]] = []
        self._arriving: list[tuple[int, Sequence, bool]] = []  # (visible at, who, whether its KV is here)
        self._ahead: Plan | None = None  # the step after the one that runs
        self._end_ps: int | None = None  # of the step that runs
        self._try_ps: int | None = None  # when an idle client plans again
        self._planned_ps = -1
        self._came: list[Sequence] = []  # KV that no step has noticed yet, where steps do
        self._noticed: list[Sequence] = []  # by the step that runs
        self._noticed_ahead: list[Sequence] = []  # by the one after it

    @property
    def busy_ps(self) -> int:
        """How long all steps took."""
        return sum(end_ps - start_ps for start_ps, end_ps, _ in self.steps)

    def submit(self, index: int, now_ns: int) -> None:
        """Let a request arrive."""
        self.sequences[index].arrival_ns = now_ns
        self._arrive((now_ns + self.spec.cost.ingest_ns) * PS_PER_NS, self.sequences[index], False)

    def bring(self, index: int, now_ns: int) -> None:
        """Let the KV of a request arrive that has blocks for it; the plan that gave them does not see it."""
        at_ps = max(now_ns * PS_PER_NS, self._planned_ps + 1)
        if self.spec.polls_kv and self._end_ps is not None:
            self._came.append(self.sequences[index])
        else:
            self._arrive(at_ps, self.sequences[index], True)

    def let_go(self, index: int, now_ns: int) -> None:
        """Free the blocks of a prompt that nobody awaits any more."""
        if not self.scheduler.let_go(index):
            self.sequences[index].request.awaited = False
        elif self._end_ps is None and self.scheduler.queue.members:
            self._wake(max(now_ns * PS_PER_NS, self._planned_ps))

    def next_ps(self) -> int | None:
        """Return when something happens here, unless something arrives before."""
        instants = [at for at in (self._end_ps, self._try_ps) if at is not None]
        instants += [at for at, _, _ in self._arriving[:1]]
        return min(instants, default=None)

    def run_until(self, until_ps: int) -> None:
        """Do all that happens before ``until_ps``."""
        while (now_ps := self.next_ps()) is not None and now_ps < until_ps:
            while self._arriving and self._arriving[0][0] == now_ps:
                self._take_in(*self._arriving.pop(0))
            if self._end_ps == now_ps:
                self.scheduler.deliver(self.steps[-1][2], now_ps)
                self._end_ps = None
                for sequence in self._noticed:
                    self.scheduler.arrive_kv(sequence)
                self._noticed, self._noticed_ahead = self._noticed_ahead, []
                self._plan(now_ps)
                if self._end_ps is None:  # an idle client looks all the time
                    for sequence in [*self._noticed, *self._came]:
                        self._arrive(now_ps + 1, sequence, True)
                    self._noticed, self._came = [], []
            elif self._try_ps == now_ps:
                self._plan(now_ps)

    def _arrive(self, at_ps: int, sequence: Sequence, with_kv: bool) -> None:
        place = len(self._arriving)
        while place and self._arriving[place - 1][0] > at_ps:
            place -= 1
        self._arriving.insert(place, (at_ps, sequence, with_kv))

    def _take_in(self, at_ps: int, sequence: Sequence, with_kv: bool) -> None:
        if with_kv:
            self.scheduler.arrive_kv(sequence)
        else:
            self.scheduler.queue.arrive(sequence)
        if self._end_ps is None:
            self._wake(at_ps)

    def _wake(self, at_ps: int) -> None:
        self._try_ps = at_ps if self._try_ps is None else min(self._try_ps, at_ps)

    def _plan(self, now_ps: int) -> None:
        """Begin the next step, if there is one, and plan the one after it."""
        self._try_ps = None
        launched = self._ahead is not None
        plan = self._ahead or self._ask(now_ps)
        self._ahead = None
        if plan.empty and plan.preempted:  # the last sequence, itself: those that wait have their turn
            plan = self._ask(now_ps)
        if plan.empty:
            return
        end_ps = now_ps + self.policy.swap_ps_per_block * plan.copied_blocks
        end_ps += self.policy.import_ps * plan.imported + self.policy.export_ps * plan.prompts_computed
        if plan.tokens:
            context = sum(plan.decode_contexts)
            end_ps += self.spec.cost.step_ps(plan.prefills, len(plan.decode_contexts), context)
        if isinstance(self.scheduler, AdapterScheduler):
            end_ps += plan.load_ps + self.scheduler.extra_ps(plan)
        for index in plan.tokens:
            if self.sequences[index].start_ps < 0:
                self.sequences[index].start_ps = now_ps
        self.steps.append((now_ps, end_ps, plan))
        self._end_ps = end_ps
        if not launched:
            self._noticed += self._came
            self._came = []
        if self.spec.lookahead:
            ahead = self._ask(now_ps)
            self._ahead = None if ahead.empty else ahead
        if self._ahead is not None:  # it is launched now
            self._noticed_ahead, self._came = self._came, []

    def _ask(self, now_ps: int) -> Plan:
        self._planned_ps = now_ps
        plan = self.scheduler.plan()
        self.grants += plan.granted
        return plan


def sequence_of(index: int, request: OracleRequest) -> Sequence:
    """Return a request as its client receives it, with nothing generated here."""
    if not request.prefilled:
        return Sequence(index, request, asking=request.asks)
    return Sequence(index, request, computed=request.prompt, generated=1, swapped=True, asking=request.asks)
