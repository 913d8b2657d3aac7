"""The oracle against schedules of the real vLLM scheduler, step by step."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from oracles.llm_client import OraclePolicy, OracleRequest, OracleResult, simulate_llm_client
from oracles.random_systems import PS_PER_US, build_affine_cost
from oracles.small_clients import small_client
from tries import some_of


@pytest.mark.shared_data
@pytest.mark.parametrize("prefix_cache", [False, True])
def test_chunked_batching_reproduces_every_recorded_vllm_schedule(
    shared_data: Path, prefix_cache: bool
) -> None:
    with gzip.open(shared_data / "vllm_schedules" / "cases.json.gz", "rt") as file:
        numbered = list(enumerate(json.load(file)))
    cases = [(number, case) for number, case in numbered if case["prefix_cache"] == prefix_cache]
    assert {case["lookahead"] for _, case in cases} == {0, 1}
    assert all(case["reserve_full_prompt"] for _, case in cases)

    for number, case in some_of(cases, one_in=3):
        result = simulate(case)
        assert [time / PS_PER_US for time in result.first_ps] == case["first_token_us"], number
        assert [time / PS_PER_US for time in result.finish_ps] == case["finish_us"], number
        assert result.cached_tokens == case["cached_tokens"], number
        steps = [
            (
                step.start_ps / PS_PER_US,
                step.end_ps / PS_PER_US,
                step.tokens,
                # vLLM reports whom a step preempted as a set, recorded in order of name, and nobody of a
                # plan that came out empty.
                sorted(step.preempted[step.preempted_before :]),
            )
            for step in result.steps
        ]
        assert steps == [
            (start, start + duration, {int(name): count for name, count in tokens.items()}, preempted)
            for start, duration, tokens, preempted in case["steps"]
        ], number


def simulate(case: dict[str, Any]) -> OracleResult:
    cost, block_size = case["cost"], case["block_size"]
    max_tokens, max_seqs = case["max_num_batched_tokens"], case["max_num_seqs"]
    spec = small_client(
        build_affine_cost(cost["fixed"], cost["per_token"], cost["per_context"], max_tokens, max_seqs),
        block_size=block_size,
        max_num_seqs=max_seqs,
        max_num_batched_tokens=max_tokens,
        **{name: case[name] for name in ("kv_blocks", "lookahead")},
    )
    requests = [
        OracleRequest(
            row["arrival_us"] * 1000,
            row["prompt"],
            row["output"],
            tuple((row["family"], block) for block in range(row["shared"] // block_size)),
        )
        for row in case["requests"]
    ]
    return simulate_llm_client(spec, requests, OraclePolicy(prefix_cache=case["prefix_cache"]))
