"""The summary says which share of the prompt tokens a prefix cache found."""

from __future__ import annotations

import pytest

import hermes_flow as hf
from hermes_flow.report.console import run_summary

SHARED = [  # 1,536 tokens that all prompts begin with, and 1,024 of their own: three fifths
    *(
        "pipeline=llm",
        "workload=sessions",
        "workload.turns=1",
        "workload.sessions=40",
        "workload.rate_per_s=0.1",
    ),
    *(
        "workload.system_prompt_tokens=1536",
        "workload.input_tokens=1024",
        "workload.output_tokens=2",
        "workload.system_prompts=1",
    ),
]


def test_a_shared_part_of_every_prompt_is_found_by_all_but_the_first() -> None:
    program = hf.compile(hf.compose(SHARED))
    summary = hf.simulate(program).summary
    assert summary["prefix"] == {
        "hit_tokens": 39 * 1536,
        "hit_share": pytest.approx(39 * 1536 / (40 * 2560), abs=1e-12),
    }
    assert "prefix cache  58 % of prompt tokens found (59,904 tokens)" in run_summary(summary, program)


@pytest.mark.parametrize("override", ["cluster.pools.llm.prefix_cache=false", "workload=synthetic"])
def test_nothing_is_said_where_nothing_can_be_found(override: str) -> None:
    given = SHARED if "false" in override else ["workload.requests=5"]
    assert "prefix" not in hf.simulate(hf.compile(hf.compose([*given, override]))).summary


def test_of_two_pools_only_the_prompts_that_are_computed_count() -> None:
    summary = hf.simulate(hf.compile(hf.compose([*SHARED, "cluster=disaggregated"]))).summary
    assert summary["prefix"]["hit_tokens"] == 39 * 1536


def test_sixty_percent_of_prompt_tokens_can_be_asked_for() -> None:
    """960 of 1,600 tokens are 60 whole blocks, which every request but the first one finds."""
    given = ["pipeline=llm", "workload=synthetic", "workload.requests=20", "workload.prefix_share=0.6"]
    given += ["workload.input_tokens=1600", "workload.output_tokens=4"]
    result = hf.simulate(hf.compile(hf.compose(given)))
    assert result.summary["prefix"] == {"hit_tokens": 19 * 960, "hit_share": pytest.approx(0.6 * 19 / 20)}
    assert result.requests["cached_tokens"].to_list() == [0, *[960] * 19]
    with pytest.raises(
        hf.HermesFlowError, match=r"workload\.prefix_share: repeated_prompts says what prompts share"
    ):
        hf.compile(hf.compose([*given, "workload.repeated_prompts={prefixes: 1, per_prefix: 1}"]))
