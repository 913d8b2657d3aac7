"""Whole runs with data-parallel attention: limits of each rank, on every layout, with results that hold together."""

from __future__ import annotations

from pathlib import Path

import pytest

import hermes_flow as hf
from hermes_flow.validation.invariants.check import check_run

MIXTURE = [
    *("model=mixtral_8x7b", "hardware=h100_sxm", "slo=none", "workload=synthetic", "workload.requests=40"),
    *("output.steps=true", "workload.rate_per_s=20"),
]


def ranks(pool: str, count: int) -> list[str]:
    key = f"cluster.pools.{pool}"
    return [f"{key}.data_parallel={count}", f"{key}.expert_parallel=true"]


RUNS = {
    "prompts that are found again": ["pipeline=agent", "workload.requests=12", *ranks("llm", 4)],
    "swapping": ["cluster.pools.llm.preemption=swap", "cluster.pools.llm.kv_blocks=260", *ranks("llm", 4)],
    "drafts": ["+model@cluster.pools.llm.speculative.draft=llama2_7b", *ranks("llm", 4)],
    "answers read as they are written": ["pipeline=chat_guarded", *ranks("llm", 4)],
    "prefill and decode apart, and little KV": [
        *("cluster=disaggregated", "cluster.pools.prefill.hardware.memory_gb=141"),
        *("cluster.pools.decode.hardware.memory_gb=141", "cluster.pools.decode.kv_blocks=300"),
        *(*ranks("prefill", 2), *ranks("decode", 2)),
    ],
    "sessions on ranks of SGLang": [
        *("pipeline=agent", "engine=sglang", "workload.requests=8", *ranks("llm", 4)),
        "cluster.pools.llm.rank_routing=shortest_queue",
    ],
    "ranks of TensorRT-LLM, and users who give up": [
        *("engine=tensorrt_llm", "workload.requests=20", "workload.timeout_s=8", *ranks("llm", 4)),
    ],
    "a client that fails, and one that is slow": [
        "cluster.pools.llm.count=2",
        "cluster.pools.llm.failures={events: [{at_s: 1, client: 0, for_s: 2}],"
        " slowdowns: [{at_s: 1, client: 1, for_s: 1, factor: 3}]}",
        *ranks("llm", 4),
    ],
}


@pytest.mark.parametrize("name", RUNS)
def test_runs_on_ranks_keep_every_invariant(name: str, tmp_path: Path) -> None:
    result = hf.simulate(hf.compile(hf.compose([*MIXTURE, *RUNS[name]])))
    assert result.summary["requests"]["completed"] >= 0.95 * len(result.requests)
    result.write(tmp_path / "run")
    assert check_run(tmp_path / "run").violations == ()


def test_the_limits_are_those_of_a_rank() -> None:
    """Four ranks of two seats run as many requests at once as four clients of two seats, not as one of them."""
    few = [*MIXTURE, "cluster.pools.llm.max_num_seqs=2", "workload.rate_per_s=4"]
    grouped = hf.simulate(hf.compile(hf.compose([*few, *ranks("llm", 4)]))).summary
    alone = hf.simulate(hf.compile(hf.compose([*few, "cluster.pools.llm.tensor_parallel=4"]))).summary
    assert grouped["ttft_s"]["mean"] < 0.5 * alone["ttft_s"]["mean"]
    program = hf.compile(hf.compose([*few, *ranks("llm", 4)]))
    (pool,) = (one for one in program.pools if one.name == "llm")
    assert "at most 2 sequences and 8,192 tokens a step, on each rank" in pool.notes[0]


def test_two_ranks_with_round_robin_take_turns_and_others_the_least_loaded() -> None:
    base = [*MIXTURE, *ranks("llm", 2), "cluster.pools.llm.tensor_parallel=2"]
    turns, least = (
        hf.simulate(hf.compile(hf.compose([*base, f"cluster.pools.llm.rank_routing={rule}"]))).requests
        for rule in ("round_robin", "least_requests")
    )
    assert not turns.equals(least)
