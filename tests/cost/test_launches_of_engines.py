"""Prompts of mixtures on SGLang: the host launches their kernels for longer than vLLM's does."""

from __future__ import annotations

import pytest
from cost.catalog import roofline

import hermes_flow as hf
from hermes_flow.pools.llm.schema import LLMPool

LONE = (
    *("pipeline=llm", "slo=none", "workload=synthetic", "workload.requests=1"),
    *("workload.input_tokens=1024", "workload.output_tokens=1", "cluster.pools.llm.prefix_cache=false"),
)


def first_token_s(*overrides: str) -> float:
    run = hf.simulate(hf.compile(hf.compose([*LONE, *overrides])))
    return float(run.requests["ttft_s"][0])


@pytest.mark.parametrize(("hardware", "launched_us"), [("h200_sxm", 2860), ("b200_sxm", 2440)])
def test_a_short_prompt_of_a_mixture_takes_as_long_as_its_launches(hardware: str, launched_us: int) -> None:
    mixture = ("model=mixtral_8x7b", f"hardware={hardware}", "cluster.pools.llm.tensor_parallel=2")
    waits_s = first_token_s("engine=sglang", *mixture) - first_token_s("engine=vllm", *mixture)
    assert waits_s == pytest.approx(32e-6 * (launched_us - 1540), abs=1e-6)  # 32 layers of experts


def test_a_short_prompt_on_one_rank_of_attention_waits_for_the_launches_of_experts_too() -> None:
    ranks = ("cluster.pools.llm.data_parallel=2", "cluster.pools.llm.expert_parallel=true")
    mixture = ("model=mixtral_8x7b", "hardware=h200_sxm", *ranks)
    waits_s = first_token_s("engine=sglang", *mixture) - first_token_s("engine=vllm", *mixture)
    assert waits_s == pytest.approx(32e-6 * (2860 - 1540), abs=1e-6)


def test_a_dense_prompt_has_the_launches_of_vllm() -> None:
    dense = ("model=llama3_70b", "hardware=h200_sxm", "cluster.pools.llm.tensor_parallel=8")
    assert first_token_s("engine=sglang", *dense) == pytest.approx(
        first_token_s("engine=vllm", *dense), abs=1e-6
    )


HYBRID = ("engine=sglang", "model=qwen3_5_27b", "cluster.pools.llm.tensor_parallel=2")
EAGER = "hardware.engine.eager"
WITH_DELTA_RULE = 48  # of its 64 layers


def test_layers_with_the_delta_rule_launch_more_kernels() -> None:
    def with_more_s(more_us: int, model: str = HYBRID[1]) -> float:
        return first_token_s(*HYBRID, "hardware=h200_sxm", f"{EAGER}.delta_rule_us={more_us}", model)

    assert with_more_s(3000) - with_more_s(1000) == pytest.approx(WITH_DELTA_RULE * 2e-3, abs=1e-6)
    dense = "model=llama3_70b"
    assert with_more_s(3000, dense) == with_more_s(1000, dense)


def test_launches_and_kernels_of_the_delta_rule_add_where_the_device_waits() -> None:
    """On an A100 the scan is a part of the kernels, as its time was not measured."""

    def time_s(launch_us: int, waits: bool) -> float:
        launches = (f"{EAGER}.layer_us={launch_us}", f"{EAGER}.delta_rule_us=0")
        return first_token_s(
            *HYBRID, "hardware=a100_sxm", *launches, f"{EAGER}.delta_rule_waits={waits}".lower()
        )

    hidden_s = 64 * 9e-3
    longer_s = time_s(9000, waits=False)  # than the kernels, which run meanwhile
    kernels_s = hidden_s - (longer_s - time_s(0, waits=False))
    assert 0.1 < kernels_s < hidden_s
    assert time_s(9000, waits=True) - longer_s == pytest.approx(WITH_DELTA_RULE / 64 * kernels_s, rel=1e-4)
    assert time_s(0, waits=True) == pytest.approx(time_s(0, waits=False), abs=1e-6)


def test_only_sglang_waits_in_layers_with_the_delta_rule() -> None:
    def note(engine: str, *words: str) -> str:
        pool = hf.compose(
            ["pipeline=llm", "hardware=h200_sxm", *HYBRID[1:], f"engine={engine}", *words]
        ).cluster.pools["llm"]
        assert isinstance(pool, LLMPool)
        return roofline(pool.model, pool.hardware).provenance[-1]

    assert "more for the delta rule, added to the kernels of layers with it" in note("sglang")
    assert "added to the kernels" not in note("vllm")
    waits = note("vllm", f"{EAGER}.delta_rule_waits=true")
    assert "350 µs a layer, added to the kernels of layers with the delta rule" in waits


def test_scans_over_prompts_are_hidden_by_launches_unless_the_device_waits() -> None:
    """A chunk of 64 tokens takes 1 µs more; a scan has the chunks of its prompt, and those of extra_tokens."""

    def longer_s(waits: bool) -> float:
        measured = ("hardware=h200_sxm", f"{EAGER}.layer_us=9000", f"{EAGER}.delta_rule_us=0")
        how = f"{EAGER}.delta_rule_waits={waits}".lower()
        fast, slow = (
            first_token_s(*HYBRID, *measured, how, f"hardware.efficiency.delta_rule.chunk_us={chunk_us}")
            for chunk_us in (3, 4)
        )
        return slow - fast

    extra = hf.compose([*LONE, *HYBRID, "hardware=h200_sxm"]).hardware.efficiency.delta_rule.extra_tokens
    assert longer_s(waits=True) == pytest.approx(WITH_DELTA_RULE * (1024 + extra) / 64 * 1e-6, abs=1e-6)
    assert longer_s(waits=False) == pytest.approx(0.0, abs=1e-9)
