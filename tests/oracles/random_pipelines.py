"""Small random LLM clients with pipeline parallelism under pressure: random systems, cut into stages."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import strategies as st
from oracles.llm_client import PLAIN, OraclePolicy
from oracles.random_systems import Between, RandomSystem, random_system, random_systems

from hermes_flow.program.step_cost import StepCost
from hermes_flow.program.units import PS_PER_NS


def random_pipeline(
    rng: random.Random,
    batching: str | None = None,
    policy: OraclePolicy = PLAIN,
    stages: int | None = None,
) -> RandomSystem:
    """Draw a system from a seeded generator; 2 to 4 ``stages`` where not given."""
    return _staged(rng.randint, random_system(rng, batching, lookahead=0, policy=policy), stages)


@st.composite
def random_pipelines(draw: st.DrawFn, batching: str | None = None) -> RandomSystem:
    """Draw the same systems as ``random_pipeline`` through hypothesis, which shrinks a failing one."""
    system = draw(random_systems(batching, lookahead=0))
    return _staged(lambda low, high: draw(st.integers(low, high)), system, stages=None)


def _staged(between: Between, system: RandomSystem, stages: int | None) -> RandomSystem:
    """Let a step take one to three times as long in the last stage, in those before it, or in both.

    A hop takes nothing, or a few units of the system's grid of times, as a step of few tokens does; its time for a
    token may be halves of a picosecond.
    """
    cost = system.spec.cost
    unit_ps = max(PS_PER_NS, cost.ingest_ns * PS_PER_NS)
    spec = replace(
        system.spec,
        pipeline_ranks=between(2, 4) if stages is None else stages,
        upstream=_scaled(cost, between(1, 3)),
        cost=_scaled(cost, between(1, 3)),
        hop_ps=(0, unit_ps * between(0, 3))[between(0, 1)],
        hop_ps_per_token=(0.0, float(unit_ps * between(0, 2)), 0.5 * between(0, 3))[between(0, 2)],
    )
    return replace(system, spec=spec)


def _scaled(cost: StepCost, factor: int) -> StepCost:
    """Return a step that takes ``factor`` times as long."""
    return replace(
        cost,
        tokens_ps=[factor * ps for ps in cost.tokens_ps],
        sequences_ps=[factor * ps for ps in cost.sequences_ps],
        decode_attention_ps=[factor * ps for ps in cost.decode_attention_ps],
        context_ps=factor * cost.context_ps,
        prefill_launch_ps=factor * cost.prefill_launch_ps,
        prefill_pair_ps=factor * cost.prefill_pair_ps,
        prefill_context_ps=factor * cost.prefill_context_ps,
        mixed_attention_ps=[factor * ps for ps in cost.mixed_attention_ps],
        mixed_context_ps=factor * cost.mixed_context_ps,
    )
