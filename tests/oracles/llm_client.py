"""The naive reference simulator of one LLM client: plain objects, one step at a time, every rule spelled out.

It exists to be read and believed, and to be compared with the fast engine.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

from oracles.llm_adapters import AdapterScheduler
from oracles.llm_gang import GangScheduler
from oracles.llm_images import NaiveImages
from oracles.llm_priority import PriorityScheduler
from oracles.llm_scheduler import StepScheduler
from oracles.llm_sequence import PLAIN, OraclePolicy, OracleRequest, Plan, Sequence
from oracles.llm_speculation import SpeculatingScheduler

from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.step_cost import StepCost
from hermes_flow.program.units import PS_PER_NS

__all__ = ["PLAIN", "OraclePolicy", "OracleRequest", "OracleResult", "OracleStep", "simulate_llm_client"]


@dataclass
class OracleStep:
    """One forward pass: what its plan scheduled (request → tokens) and whom the plan preempted, in order.

    Requests preempted by a plan that came out empty are listed with the next step, first: those are the first
    ``preempted_before`` ones.
    """

    start_ps: int
    end_ps: int
    tokens: dict[int, int]
    preempted: list[int]
    used_blocks_after_planning: int
    preempted_before: int = 0
    copied_blocks: int = 0  # to the host and back


@dataclass
class OracleResult:
    """One entry per request, and every step in order of time.

    ``start_ps`` is the start of the first step that scheduled the request, ``first_ps`` and ``finish_ps`` the
    ends of the steps that emitted its first and its last token; -1 for a first token emitted elsewhere.
    ``emitted_ps`` are the ends of all steps that emitted a token of it (not told of gangs).
    """

    start_ps: list[int]
    first_ps: list[int]
    finish_ps: list[int]
    preemptions: list[int]
    cached_tokens: list[int]
    steps: list[OracleStep]
    emitted_ps: list[list[int]]
    adapter_loads: int = 0  # from host memory, and from disk
    adapter_reads: int = 0
    images: NaiveImages | None = None  # as its cache is at the end


@dataclass
class Look:
    """A look into the prefix cache at ``at_ps``, before anything is planned then: how much of ``keys`` it holds."""

    at_ps: int
    keys: tuple[Hashable, ...]
    found: int = -1


def simulate_llm_client(
    spec: LLMClientSpec,
    requests: list[OracleRequest],
    policy: OraclePolicy = PLAIN,
    looks: Iterable[Look] = (),
    cost_at: Callable[[int], StepCost] | None = None,
) -> OracleResult:
    """Run ``requests`` (in arrival order, but for those after others) through one client until the last finishes.

    Every request must fit the client's KV blocks by itself. Raises ValueError for a batching policy that the
    oracle does not know, and for static batching with prefix cache. ``cost_at`` tells what a step costs by the
    instant (ps) at which it is planned, where that changes.
    """
    scheduler = build_scheduler(spec, policy)
    sequences = [_as_it_comes(index, request) for index, request in enumerate(requests)]
    steps: list[OracleStep] = []
    unlisted: list[int] = []  # requests preempted by a plan that came out empty
    planned: Plan | None = None  # the next step, where lookahead planned it while the last one began
    arriving = [sequence for sequence in sequences if sequence.request.after is None]
    following = [sequence for sequence in sequences if sequence.request.after is not None]
    now_ps = ahead_ps = 0
    to_come = sorted(looks, key=lambda look: look.at_ps)

    def look_until(at_ps: int | None) -> None:
        while to_come and (at_ps is None or to_come[0].at_ps <= at_ps):
            look = to_come.pop(0)
            look.found = len(scheduler.pool.find(look.keys))

    drop_unseen(arriving, spec)
    while any(not sequence.over for sequence in reversed(sequences)) or planned:
        # No step runs at this instant, and all that ended are delivered.
        look_until(now_ps)
        while arriving and _visible_ps(arriving[0], spec) <= now_ps:
            scheduler.queue.arrive(arriving.pop(0))
        for sequence in sorted(sequences, key=taken_back_at):
            if sequence.to_be_dropped(now_ps):
                scheduler.withdraw(sequence)
        plan, planned_ps = planned or scheduler.plan(), ahead_ps if planned else now_ps
        planned = None
        if plan.empty and plan.preempted:  # those that were not thrown out may go on
            unlisted += plan.preempted
            continue
        if plan.empty:
            assert scheduler.idle, "a client with work does not idle"
            if not arriving:
                break
            now_ps = _visible_ps(arriving[0], spec)
            continue

        decode_context = sum(plan.decode_contexts)
        end_ps = now_ps + policy.swap_ps_per_block * plan.copied_blocks + policy.import_ps * plan.imported
        end_ps += policy.export_ps * plan.prompts_computed
        if plan.tokens:
            cost = spec.cost if cost_at is None else cost_at(planned_ps)
            end_ps += cost.step_ps(plan.prefills, len(plan.decode_contexts), decode_context)
        end_ps += plan.encode_ps
        if isinstance(scheduler, AdapterScheduler):
            end_ps += plan.load_ps + scheduler.extra_ps(plan)
        preempted = unlisted + plan.preempted
        steps.append(
            OracleStep(
                now_ps,
                end_ps,
                plan.tokens,
                preempted,
                plan.used_blocks,
                preempted_before=len(unlisted),
                copied_blocks=plan.copied_blocks,
            )
        )
        unlisted = []
        for index in plan.tokens:
            if sequences[index].start_ps < 0:
                sequences[index].start_ps = now_ps

        if spec.lookahead == 1:
            planned, ahead_ps = scheduler.plan(), now_ps
            if planned.empty:
                unlisted = planned.preempted
                planned = None
        look_until(end_ps)
        now_ps = end_ps
        scheduler.deliver(plan, now_ps)
        released = [sequence for sequence in following if _is_released(sequence, sequences)]
        arriving = sorted(arriving + released, key=_order) if released else arriving

    look_until(None)
    assert scheduler.idle
    assert not unlisted
    assert scheduler.pool.used == 0
    return OracleResult(
        start_ps=[sequence.start_ps for sequence in sequences],
        first_ps=[sequence.first_ps for sequence in sequences],
        finish_ps=[sequence.finish_ps for sequence in sequences],
        preemptions=[sequence.preemptions for sequence in sequences],
        cached_tokens=[sequence.cached_tokens for sequence in sequences],
        steps=steps,
        emitted_ps=[sequence.emitted_ps for sequence in sequences],
        adapter_loads=getattr(scheduler, "loads", 0),
        adapter_reads=getattr(scheduler, "reads", 0),
        images=getattr(scheduler, "images", None),
    )


def _as_it_comes(index: int, request: OracleRequest) -> Sequence:
    arrival_ns = request.arrival_ns if request.after is None else -1
    if not request.prefilled:
        return Sequence(index, request, arrival_ns=arrival_ns)
    assert request.output > 1, "its only token is out"
    return Sequence(index, request, computed=request.prompt, generated=1, swapped=True, arrival_ns=arrival_ns)


def taken_back_at(sequence: Sequence) -> int:
    return sequence.request.withdrawn_ns or 0


def drop_unseen(arriving: list[Sequence], spec: LLMClientSpec) -> None:
    """Remove the sequences that are taken back before the scheduler sees them."""
    for sequence in list(arriving):
        if sequence.to_be_dropped(_visible_ps(sequence, spec) - 1):
            sequence.gone = True
            arriving.remove(sequence)


def _visible_ps(sequence: Sequence, spec: LLMClientSpec) -> int:
    return (sequence.arrival_ns + spec.cost.ingest_ns) * PS_PER_NS


def _order(sequence: Sequence) -> tuple[int, bool, int]:
    """By arrival; at one instant, a request that follows from a finish of that very instant comes last."""
    request = sequence.request
    return sequence.arrival_ns, request.after is not None and not request.arrival_ns, sequence.index


def _is_released(sequence: Sequence, sequences: list[Sequence]) -> bool:
    """Whether the one that ``sequence`` comes after has just finished; if so, its arrival is set."""
    if sequence.arrival_ns >= 0 or sequence.request.after is None:
        return False
    finish_ps = sequences[sequence.request.after].finish_ps
    if finish_ps < 0:
        return False
    sequence.arrival_ns = finish_ps // PS_PER_NS + sequence.request.arrival_ns
    return True


def build_scheduler(spec: LLMClientSpec, policy: OraclePolicy) -> StepScheduler | GangScheduler:
    if spec.adapters is not None:
        return AdapterScheduler(spec, policy)
    if policy.packing == "vllm_priority":
        return PriorityScheduler(spec, policy)
    if spec.batching in ("chunked", "mixed", "continuous"):
        return StepScheduler(spec, policy) if spec.speculation is None else SpeculatingScheduler(spec, policy)
    if spec.batching == "static":
        return GangScheduler(spec, policy)
    raise ValueError(f"the oracle knows chunked, mixed, continuous and static, not {spec.batching!r}")
