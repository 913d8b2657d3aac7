"""Prompts of mixtures on SGLang: the host launches their kernels for longer than vLLM's does."""

from __future__ import annotations

import pytest

import hermes_flow as hf

LONE = (
    *("pipeline=llm", "slo=none", "workload=synthetic", "workload.requests=1"),
    *("workload.input_tokens=1024", "workload.output_tokens=1", "cluster.pools.llm.prefix_cache=false"),
)


def first_token_s(*overrides: str) -> float:
    run = hf.simulate(hf.compile(hf.compose([*LONE, *overrides])))
    return float(run.requests["ttft_s"][0])


@pytest.mark.parametrize(("hardware", "launched_us"), [("h200_sxm", 3420), ("b200_sxm", 3000)])
def test_a_short_prompt_of_a_mixture_takes_as_long_as_its_launches(hardware: str, launched_us: int) -> None:
    mixture = ("model=mixtral_8x7b", f"hardware={hardware}", "cluster.pools.llm.tensor_parallel=2")
    waits_s = first_token_s("engine=sglang", *mixture) - first_token_s("engine=vllm", *mixture)
    assert waits_s == pytest.approx(32e-6 * (launched_us - 1540), abs=1e-6)  # 32 layers of experts


def test_a_dense_prompt_has_the_launches_of_vllm() -> None:
    dense = ("model=llama3_70b", "hardware=h200_sxm", "cluster.pools.llm.tensor_parallel=8")
    assert first_token_s("engine=sglang", *dense) == pytest.approx(
        first_token_s("engine=vllm", *dense), abs=1e-6
    )
