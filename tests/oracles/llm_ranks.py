"""The naive client with data-parallel attention: ranks that plan apart and step together, and their front end.

Each rank is a naive scheduler with the blocks, seats and budget of one rank. All of them plan at the same instants. A
step with work on any rank begins for all as the one before ends, and ends for all when the rank that takes longest by
its own sequences is done, plus the time of the experts for the tokens of all ranks. Where no rank has work, nothing
runs. With look-ahead all plan a step as the one before begins; if nobody has work then, all plan again as it ends.

The front end gives each request to a rank as it arrives. "round_robin": in turns. "least_requests": to the rank with
the lowest 4 · waiting + running, the first of equal ones. It learns both numbers at the multiples of ``period_ps``:
of a rank's sequences that its scheduler has seen before that instant and that were not over before it, those that
have a seat run, and the others wait. Every request that it gives a rank until the next report counts 4 more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from oracles.llm_client import build_scheduler
from oracles.llm_gang import GangScheduler
from oracles.llm_sequence import PLAIN, OraclePolicy, OracleRequest, Plan, Sequence

from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.step_cost import StepCost
from hermes_flow.program.units import PS_PER_NS


@dataclass
class RankedStep:
    """One step: when, and by rank its decodes, the tokens computed before them, and its tokens of prompts.

    ``worked`` are the ranks that had anything to do, if only to copy.
    """

    start_ps: int
    end_ps: int
    parts: list[tuple[int, int, int]]
    worked: set[int]


@dataclass
class RankedResult:
    """The sequences with all of their times, the rank of each, and every step in order."""

    sequences: list[Sequence]
    ranks: list[int]
    steps: list[RankedStep]
    peaks: list[int]  # by rank, the most blocks in use


class FrontEnd:
    """Gives the requests to ranks, in order of arrival."""

    def __init__(self, members: list[list[Sequence]], seated: Callable[[Sequence], bool], seen_after_ns: int):
        self.members = members
        self.seated = seated
        self.seen_after_ns = seen_after_ns
        self.scores = [0] * len(members)
        self.turn = 0

    def report(self, at_ps: int) -> None:
        for rank, members in enumerate(self.members):
            seen = [one for one in members if self.seen_ps(one) < at_ps and not one.over]
            running = sum(self.seated(one) for one in seen)
            self.scores[rank] = 4 * (len(seen) - running) + running

    def seen_ps(self, sequence: Sequence) -> int:
        return (sequence.request.arrival_ns + self.seen_after_ns) * PS_PER_NS

    def choose(self, routing: str) -> int:
        if routing == "round_robin":
            self.turn += 1
            return (self.turn - 1) % len(self.members)
        best = min(range(len(self.members)), key=lambda rank: (self.scores[rank], rank))
        self.scores[best] += 4
        return best


def simulate_ranks(
    spec: LLMClientSpec,
    cost: StepCost,
    requests: list[OracleRequest],
    policy: OraclePolicy = PLAIN,
    *,
    period_ps: int,
) -> RankedResult:
    """Run ``requests``, in order of arrival, until the last ends; ``cost`` is that of a rank by its own sequences."""
    count = spec.attention_ranks
    own = replace(spec, kv_blocks=spec.kv_blocks // count, cost=cost)
    schedulers = [build_scheduler(own, policy) for _ in range(count)]
    sequences = [_comes(index, request) for index, request in enumerate(requests)]
    members: list[list[Sequence]] = [[] for _ in schedulers]
    rank_of: dict[int, int] = {}

    def seated(sequence: Sequence) -> bool:
        scheduler = schedulers[rank_of[sequence.index]]
        assert not isinstance(scheduler, GangScheduler)
        return sequence in scheduler.running

    front = FrontEnd(members, seated, cost.ingest_ns)
    to_come, unseen = list(sequences), list(sequences)
    reported_ps = 0

    def front_until(limit_ps: int) -> None:
        """Let the front end do what it does up to and including ``limit_ps``; nothing else happened since."""
        nonlocal reported_ps

        def report_until(at_ps: int) -> None:
            nonlocal reported_ps
            last = at_ps // period_ps * period_ps
            if last > reported_ps:
                front.report(last)
                reported_ps = last

        while to_come and to_come[0].request.arrival_ns * PS_PER_NS <= limit_ps:
            sequence = to_come.pop(0)
            report_until(sequence.request.arrival_ns * PS_PER_NS)
            rank = rank_of[sequence.index] = front.choose(spec.rank_routing)
            members[rank].append(sequence)
        report_until(limit_ps)

    steps: list[RankedStep] = []
    peaks = [0] * count
    planned: list[Plan] | None = None
    now_ps = 0
    while any(not sequence.over for sequence in sequences) or planned:
        front_until(now_ps)
        while unseen and front.seen_ps(unseen[0]) <= now_ps:
            sequence = unseen.pop(0)
            schedulers[rank_of[sequence.index]].queue.arrive(sequence)
        plans = planned or [scheduler.plan() for scheduler in schedulers]
        planned = None
        if all(plan.empty for plan in plans):
            if not unseen:
                assert all(scheduler.idle for scheduler in schedulers)
                break
            now_ps = front.seen_ps(unseen[0])
            continue
        end_ps = now_ps + _duration_ps(spec, cost, plans, policy)
        worked = {rank for rank, plan in enumerate(plans) if not plan.empty}
        steps.append(RankedStep(now_ps, end_ps, [_part(plan) for plan in plans], worked))
        for rank, plan in enumerate(plans):
            peaks[rank] = max(peaks[rank], plan.used_blocks)
            for index in plan.tokens:
                if sequences[index].start_ps < 0:
                    sequences[index].start_ps = now_ps
        if spec.lookahead:
            planned = [scheduler.plan() for scheduler in schedulers]
            if all(plan.empty for plan in planned):
                planned = None
        front_until(end_ps)
        now_ps = end_ps
        for scheduler, plan in zip(schedulers, plans, strict=True):
            scheduler.deliver(plan, now_ps)
    ranks = [rank_of[sequence.index] for sequence in sequences]
    return RankedResult(sequences, ranks, steps, peaks)


def _comes(index: int, request: OracleRequest) -> Sequence:
    if not request.prefilled:
        return Sequence(index, request, arrival_ns=request.arrival_ns)
    computed = request.prompt
    return Sequence(
        index, request, computed=computed, generated=1, swapped=True, arrival_ns=request.arrival_ns
    )


def _part(plan: Plan) -> tuple[int, int, int]:
    return len(plan.decode_contexts), sum(plan.decode_contexts), sum(chunk for chunk, _ in plan.prefills)


def _duration_ps(spec: LLMClientSpec, cost: StepCost, plans: list[Plan], policy: OraclePolicy) -> int:
    tokens = 0
    of_ranks = []
    for plan in plans:
        decodes, context, prompts = _part(plan)
        own_ps = policy.swap_ps_per_block * plan.copied_blocks + policy.import_ps * plan.imported
        if plan.tokens:
            own_ps += cost.step_ps(plan.prefills, decodes, context)
        own_tokens = decodes * cost.tokens_per_decode + prompts
        of_ranks.append((own_ps, own_tokens))
        tokens += own_tokens
    experts_ps = spec.cost.experts_ps[tokens] if spec.cost.experts_ps else 0
    launching_ps = spec.cost.launching_ps
    longest = 0
    for own_ps, own_tokens in of_ranks:
        hidden_ps = min(experts_ps, launching_ps[own_tokens]) if launching_ps else 0
        longest = max(longest, own_ps + experts_ps - hidden_ps)
    return longest
