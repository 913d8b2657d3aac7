"""The naive reference simulator of one LLM client with pipeline parallelism: every micro-batch in every stage.

A client of p stages has p micro-batches. A sequence belongs to one of them from its admission until it ends or is
preempted; which one is decided by who plans when it is its turn. A micro-batch that is sent on its way takes what
its plan scheduled through stages 1 … p, entering a stage when it has come there from the one before it (a hop) and
all that were sent before it have left that stage. While it is in flight nothing is decided for it; its tokens come
out when it leaves the last stage, all at once, and what has ended gives up its seat and its blocks there.

Who plans when. At an instant: first all arrivals, then all micro-batches that leave the last stage, then, if any
left or if any request arrived while fewer than p were in flight, every micro-batch that is not in flight plans, one
after another: first those that hold sequences, then the empty ones, each group by number. Each decides one step
with the rules of llm_scheduler.py, over its own sequences and the common queue and blocks. A plan that is not empty
is sent at once; it enters stage 1 as soon as that is free.

Partly scheduled prompts. A sequence whose prompt was cut belongs to nobody in particular: whichever micro-batch
plans next takes it over, as the one admitted last, even while the chunk before is still in flight. Chunks keep their
order in every stage.

Seats (max_num_seqs) are counted over all micro-batches, the token budget for each plan. A victim of preemption is
the last one in the same micro-batch: the others are in flight, or plan for themselves.

Copies of swapping (the blocks that a plan copies out or in) lengthen every stage of that plan's step.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import floor

from oracles.llm_client import drop_unseen, taken_back_at
from oracles.llm_prefix_cache import BlockPool
from oracles.llm_queue import WaitingQueue
from oracles.llm_scheduler import StepScheduler
from oracles.llm_sequence import PLAIN, OraclePolicy, OracleRequest, Plan, Sequence

from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.units import PS_PER_NS


@dataclass
class Passage:
    """One step on its way: who planned it, what is in it, and when it was in which stage (enter, leave), in ps."""

    micro_batch: int
    planned_ps: int
    plan: Plan
    stages: list[tuple[int, int]]
    hop_ps: int

    @property
    def start_ps(self) -> int:
        return self.stages[0][0]

    @property
    def exit_ps(self) -> int:
        return self.stages[-1][1]


@dataclass
class PipelineResult:
    """One entry per request, as in OracleResult, and every step in the order in which it was sent."""

    start_ps: list[int]
    first_ps: list[int]
    finish_ps: list[int]
    preemptions: list[int]
    cached_tokens: list[int]
    emitted_ps: list[list[int]]
    passages: list[Passage] = field(default_factory=list)

    @property
    def busy_ps(self) -> int:
        """How long all stages worked, together."""
        return sum(leave - enter for passage in self.passages for enter, leave in passage.stages)

    @property
    def peak_blocks(self) -> int:
        return max(passage.plan.used_blocks for passage in self.passages)


class MicroBatchScheduler(StepScheduler):
    """Plans for one micro-batch; queue and blocks are everybody's."""

    def __init__(
        self, client: PipelineOracle, number: int, spec: LLMClientSpec, policy: OraclePolicy
    ) -> None:
        super().__init__(spec, policy)
        self.client = client
        self.number = number
        self.pool = client.pool
        self.queue = client.queue
        self.ready, self.coming, self.held = client.ready, client.coming, client.held

    def _check(self, plan: Plan) -> None:
        """Assert what holds after every plan, over all micro-batches."""
        parts = self.client.parts
        assert all(sequence.prefilling or sequence.in_flight <= 1 for sequence in self.running)
        assert sum(len(part.running) for part in parts) <= self.client.spec.max_num_seqs
        scheduled = sum(plan.tokens.values())
        lone_prompt = self.spec.batching != "chunked" and len(plan.prefills) == 1
        assert scheduled <= self.spec.max_num_batched_tokens or lone_prompt
        assert sum(sequence.prefilling for part in parts for sequence in part.running) <= 1
        assert not any(sequence.blocks for sequence in self.queue.members)
        holding = [sequence for part in parts for sequence in part.running]
        holding += [*self.ready, *self.coming, *self.held.values()]
        users = Counter(block for sequence in holding for block in sequence.blocks)
        assert all(block.users == count for block, count in users.items())
        assert all(block.users == 0 for block in self.pool.free)
        assert len(users) + len(self.pool.free) == self.spec.kv_blocks


class PipelineOracle:
    """The whole client: its micro-batches, and when each stage has done what was sent so far."""

    def __init__(self, spec: LLMClientSpec, policy: OraclePolicy) -> None:
        if spec.batching not in ("chunked", "mixed", "continuous"):
            raise ValueError(f"no pipeline for {spec.batching!r} batching")
        self.spec = spec
        self.policy = policy
        self.pool = BlockPool(spec.kv_blocks)
        self.queue = WaitingQueue(policy)
        self.ready: list[Sequence] = []
        self.coming: list[Sequence] = []
        self.held: dict[int, Sequence] = {}
        self.parts: list[MicroBatchScheduler] = []
        self.parts += [
            MicroBatchScheduler(self, number, spec, policy) for number in range(spec.pipeline_ranks)
        ]
        self.free_from_ps = [0] * spec.pipeline_ranks
        self.in_flight: list[Passage] = []
        self.passages: list[Passage] = []

    def withdraw(self, sequence: Sequence) -> None:
        """Drop a sequence that was taken back."""
        holding = [part for part in self.parts if sequence in part.running]
        (holding or self.parts)[0].withdraw(sequence)

    def plan(self, now_ps: int) -> bool:
        """Let every micro-batch plan that is not in flight; return whether any of them preempted."""
        preempted = False
        away = {passage.micro_batch for passage in self.in_flight}
        here = [part for part in self.parts if part.number not in away]
        holding = [part for part in here if part.running]
        for part in holding + [part for part in here if part not in holding]:
            self._take_over(part)
            others = sum(len(other.running) for other in self.parts if other is not part)
            seats = self.spec.max_num_seqs - others
            if part.spec.max_num_seqs != seats:
                part.spec = replace(self.spec, max_num_seqs=seats)
            plan = part.plan()
            preempted = preempted or bool(plan.preempted)
            if not plan.empty:
                self._send(part.number, plan, now_ps)
        return preempted

    def _take_over(self, part: MicroBatchScheduler) -> None:
        for other in self.parts:
            cut = [sequence for sequence in other.running if sequence.prefilling]
            if other is not part:
                other.running = [sequence for sequence in other.running if sequence not in cut]
                part.running += cut

    def _send(self, number: int, plan: Plan, now_ps: int) -> None:
        spec = self.spec
        copying_ps = self.policy.swap_ps_per_block * plan.copied_blocks
        decodes, context = len(plan.decode_contexts), sum(plan.decode_contexts)
        tokens = sum(plan.tokens.values())
        hop_ps = spec.hop_ps + floor(Fraction(spec.hop_ps_per_token) * tokens + Fraction(1, 2))
        stages = []
        arrives_ps = now_ps
        for stage in range(spec.pipeline_ranks):
            cost = spec.cost if stage == spec.pipeline_ranks - 1 else spec.upstream
            assert cost is not None
            enter_ps = max(arrives_ps, self.free_from_ps[stage])
            leave_ps = (
                enter_ps + copying_ps + (cost.step_ps(plan.prefills, decodes, context) if tokens else 0)
            )
            self.free_from_ps[stage] = leave_ps
            stages.append((enter_ps, leave_ps))
            arrives_ps = leave_ps + hop_ps
        passage = Passage(number, now_ps, plan, stages, hop_ps)
        self.in_flight.append(passage)
        self.passages.append(passage)


def simulate_pipeline(
    spec: LLMClientSpec, requests: list[OracleRequest], policy: OraclePolicy = PLAIN
) -> PipelineResult:
    """Run ``requests``, in arrival order, through one client of ``spec.pipeline_ranks`` ranks until the last ends.

    Every request must fit the client's KV blocks by itself. Raises ValueError for static batching.
    """
    client = PipelineOracle(spec, policy)
    sequences = [_as_it_comes(index, request) for index, request in enumerate(requests)]
    arriving = list(sequences)
    drop_unseen(arriving, spec)
    while any(not sequence.over for sequence in reversed(sequences)) or client.in_flight:
        coming_ps = [_visible_ps(sequence, spec) for sequence in arriving[:1]]
        leaving_ps = [passage.exit_ps for passage in client.in_flight[:1]]
        assert coming_ps + leaving_ps, "a client with work does not idle"
        now_ps = min(coming_ps + leaving_ps)
        planning = False
        while arriving and _visible_ps(arriving[0], spec) == now_ps:
            client.queue.arrive(arriving.pop(0))
            planning = planning or len(client.in_flight) < spec.pipeline_ranks
        while client.in_flight and client.in_flight[0].exit_ps == now_ps:
            passage = client.in_flight.pop(0)
            client.parts[passage.micro_batch].deliver(passage.plan, now_ps)
            planning = True
        if planning:
            for sequence in sorted(sequences, key=taken_back_at):
                if sequence.to_be_dropped(now_ps):
                    client.withdraw(sequence)
            before = len(client.passages)
            client.plan(now_ps)
            for passage in client.passages[before:]:
                for index in passage.plan.tokens:
                    if sequences[index].start_ps < 0:
                        sequences[index].start_ps = passage.start_ps
    assert not client.in_flight
    assert not client.queue.members
    assert not any(part.running for part in client.parts)
    assert client.pool.used == 0
    return PipelineResult(
        start_ps=[sequence.start_ps for sequence in sequences],
        first_ps=[sequence.first_ps for sequence in sequences],
        finish_ps=[sequence.finish_ps for sequence in sequences],
        preemptions=[sequence.preemptions for sequence in sequences],
        cached_tokens=[sequence.cached_tokens for sequence in sequences],
        emitted_ps=[sequence.emitted_ps for sequence in sequences],
        passages=client.passages,
    )


def _as_it_comes(index: int, request: OracleRequest) -> Sequence:
    assert request.after is None
    if not request.prefilled:
        return Sequence(index, request, arrival_ns=request.arrival_ns)
    return Sequence(
        index, request, computed=request.prompt, generated=1, swapped=True, arrival_ns=request.arrival_ns
    )


def _visible_ps(sequence: Sequence, spec: LLMClientSpec) -> int:
    return (sequence.arrival_ns + spec.cost.ingest_ns) * PS_PER_NS
