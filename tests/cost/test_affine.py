from __future__ import annotations

import pytest
from cost.catalog import hardware, model
from hypothesis import given
from hypothesis import strategies as st

from hermes_flow.cost import cost_models
from hermes_flow.cost.model import Deployment
from hermes_flow.errors import ConfigError
from hermes_flow.program.step_cost import StepCost

PLACE = Deployment("cluster.pools.llm", model("llama3_8b"), hardware("h100_sxm"), 1, 512, 64)


def affine(**figures: float) -> StepCost:
    return cost_models.parse({"kind": "affine", **figures}, "cost").lower(PLACE)


chunks = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 5000)), max_size=6)


@given(chunks, st.integers(0, 58), st.integers(0, 10**6))
def test_a_step_is_exactly_its_line(prefills: list[tuple[int, int]], decodes: int, context: int) -> None:
    context *= decodes > 0
    tokens = decodes + sum(chunk for chunk, _ in prefills)
    if tokens == 0:
        return
    computed = context + sum(past for _, past in prefills)
    expected = 6_000_000_000 + 25_000_000 * tokens + 40_000 * computed
    cost = affine(fixed_us=6000, per_token_us=25, per_context_us=0.04)
    assert cost.step_ps(prefills, decodes, context) == expected


def test_nothing_is_added_to_the_line() -> None:
    cost = affine(fixed_us=100)
    assert cost.ingest_ns == 0
    assert cost.prefill_launch_ps == 0
    assert set(cost.sequences_ps) == set(cost.decode_attention_ps) == {0}
    assert cost.tokens_ps[0] == 0
    assert set(cost.tokens_ps[1:]) == {100_000_000}


def test_the_tables_are_as_long_as_the_longest_step() -> None:
    cost = affine(fixed_us=1)
    assert (len(cost.tokens_ps), len(cost.sequences_ps), len(cost.decode_ps)) == (513, 65, 65)


def test_its_origin_is_the_line_itself() -> None:
    assert affine(fixed_us=6000, per_token_us=2.5).provenance == (
        "affine: 6000 µs + 2.5 µs a token + 0 µs a computed token",
    )


@pytest.mark.parametrize(
    ("figures", "key"),
    [
        ({}, "cost.fixed_us"),
        ({"fixed_us": 0}, "cost.fixed_us"),
        ({"fixed_us": 5, "per_token_us": -1}, "cost.per_token_us"),
        ({"fixed_us": 5, "per_context_us": -1}, "cost.per_context_us"),
        ({"fixed_us": 5, "per_tokens_us": 1}, "cost.per_tokens_us"),
        ({"fixed_us": "long"}, "cost.fixed_us"),
    ],
)
def test_a_line_that_no_machine_can_have_is_refused(figures: dict[str, float], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        affine(**figures)
    assert caught.value.key == key
