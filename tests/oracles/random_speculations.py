"""Small random LLM clients with speculative decoding under pressure."""

from __future__ import annotations

import random
from dataclasses import replace
from fractions import Fraction

from hypothesis import strategies as st
from oracles.llm_client import PLAIN, OraclePolicy
from oracles.random_systems import Between, RandomSystem, random_system, random_systems, reaching


def random_speculation(
    rng: random.Random,
    batching: str | None = None,
    lookahead: int | None = None,
    policy: OraclePolicy = PLAIN,
) -> RandomSystem:
    """Draw a system from a seeded generator."""
    return _speculating(rng.randint, random_system(rng, batching, lookahead, policy))


@st.composite
def random_speculations(draw: st.DrawFn, batching: str | None = None) -> RandomSystem:
    """Draw the same systems as ``random_speculation`` through hypothesis, which shrinks a failing one."""
    return _speculating(lambda low, high: draw(st.integers(low, high)), draw(random_systems(batching)))


def _speculating(between: Between, system: RandomSystem) -> RandomSystem:
    """Let a step verify up to five drafted tokens of a decode, and gain from one to all of them and one more."""
    drafted = between(1, 5)
    denominator = between(1, 7)
    expected = Fraction(between(denominator, (drafted + 1) * denominator), denominator)
    spec = system.spec
    budget = spec.max_num_batched_tokens + spec.max_num_seqs * drafted
    tokens_ps = list(spec.cost.tokens_ps)
    for _ in range(spec.max_num_seqs * drafted * 2):  # the longest step: as many more in budget and decodes
        tokens_ps.append(2 * tokens_ps[-1] - tokens_ps[-2])
    return replace(
        system,
        spec=replace(
            spec,
            max_num_batched_tokens=budget,
            cost=replace(reaching(spec.cost, tokens_ps), tokens_per_decode=drafted + 1),
            speculation=expected.as_integer_ratio(),
        ),
    )
