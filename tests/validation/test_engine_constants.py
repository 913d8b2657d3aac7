"""What is fitted to the benchmark runs of an engine, and what a run is compared with."""

from __future__ import annotations

import math
from typing import Any

import pytest
from validation.test_silicon_layouts import row

import hermes_flow as hf
from benchmarks import dense_launches, engine_constants, silicon
from benchmarks.dense_launches import relative_to_vllm
from benchmarks.engine_constants import ALL, ENGINES, OTHERS, TRIED_US, Launches, Tried, fit, fitted
from benchmarks.fits_left_out import left_out
from hermes_flow.config.schema import EagerSteps
from hermes_flow.pools.llm.schema import LLMPool


def run(family: str, gpu: str, true_us: float, apart: float = 0.0) -> Tried:
    return Tried(family, family, gpu, apart, tuple(math.log(time / true_us) for time in TRIED_US))


def test_a_fit_finds_the_launches_of_each_gpu_and_draws_them_towards_each_other() -> None:
    found = fit([run("one", "h", 1000.0), run("two", "h", 1000.0), run("one", "b", 2400.0)])
    # one model counts as much as the other GPU, two twice as much; to 20 µs
    assert found == {
        "b": Launches(20 * round((2400 * 1000) ** (1 / 2) / 20)),
        "h": Launches(20 * round((1000**2 * 2400) ** (1 / 3) / 20)),
        OTHERS: Launches(20 * round((1000 * 2400) ** (1 / 2) / 20)),
    }


def test_latent_attention_is_fitted_apart_where_both_kinds_of_models_have_runs() -> None:
    runs = [run("plain", "h", 1000.0), run("latent", "h", 3300.0, apart=1.0)]
    assert fit(runs)["h"] == Launches(1000.0, 2300.0)
    # without models of one kind nothing tells the two apart: vLLM's launches, or none for latent attention
    assert fit(runs[1:]) == dict.fromkeys(("h", OTHERS), Launches(1540.0, 1760.0))
    assert fit(runs[:1])["h"] == Launches(1000.0, 0.0)
    # or, by GPU, what another engine's layers say, which are not drawn towards each other
    both = [run("latent", gpu, time_us, apart=1.0) for gpu, time_us in (("h", 3300.0), ("b", 2400.0))]
    found = fit(both, plain_us={"h": 1500.0, "b": 600.0})
    assert found["h"] == Launches(1500.0, 1800.0)
    assert found["b"] == Launches(600.0, 1800.0)
    # another engine's layers with latent attention draw those of runs without it: √(1,000 · 4,000) − 1,000
    assert fit(runs[:1], latent_elsewhere_us=4000.0)["h"] == Launches(1000.0, 1000.0)
    assert fit(runs, latent_elsewhere_us=4000.0) == fit(runs)


def test_gpt_oss_left_out_of_tensorrt_llm_has_the_launches_of_vllm_times_those_of_a_dense_layer() -> None:
    table = fitted()
    assert relative_to_vllm("b200_sxm") == 480 / 700
    assert relative_to_vllm("h200_sxm") == 1.0  # kernels are longer than launches there
    without, vllm = table["trtllm", "gpt_oss_120b"], table["vllm", "gpt_oss_120b"]
    assert without["b200_sxm"].experts_us == 20 * round(vllm["b200_sxm"].experts_us * 480 / 700 / 20)
    assert without["h200_sxm"].experts_us == 1540.0  # of Triton's experts


def test_dense_runs_of_tensorrt_llm_are_compared_with_the_launches_of_vllm() -> None:
    dense = row(model_path="meta-llama/Llama-3.1-70B", precision="fp8")
    assert dense["system"] == "b200_sxm"
    assert layer_us_of(dense, lambda config: config) == 480
    assert layer_us_of(dense, left_out(dense)) == 700
    assert dense_launches.left_out(dense | {"backend": "vllm"}) is None
    assert dense_launches.left_out(row()) is None  # a mixture


def test_a_dense_layer_takes_the_time_with_the_least_errors() -> None:
    errors = [[math.log(tried / true) for tried in dense_launches.TRIED_US] for true in (440.0, 460.0, 560.0)]
    assert dense_launches.best_us(errors) == 460.0


def test_the_delta_rule_is_fitted_by_the_share_of_its_layers() -> None:
    runs = [run("plain", "h", 2400.0), run("hybrid", "h", 3300.0, apart=0.75)]
    assert fit(runs, "delta_rule_us")["h"] == Launches(2400.0, delta_rule_us=1200.0)


@pytest.mark.parametrize(("backend", "engine"), ENGINES.items())
def test_the_catalog_has_the_fits_to_all_runs(backend: str, engine: str) -> None:
    found = fitted()[backend, ALL]
    own, vllm = (hf.compose([f"engine={name}", "pipeline=llm"]).engine.overheads for name in (engine, "vllm"))
    gpus = [name for name, each in vllm.items() if each.eager is not None and each.eager.triton_us == 1540]
    assert len(gpus) == 7  # those of data centers, but for siblings of B200
    for gpu in gpus:
        eager = own[gpu].eager
        assert eager is not None
        assert launches_of(eager) == found.get(gpu, found[OTHERS])
        assert eager.delta_rule_waits is (backend == "sglang")
        assert (eager.triton_us is None) is (backend != "vllm")


def layer_us_of(row: dict[str, Any], edit: Any) -> float:
    pool = edit(silicon.config(row)).cluster.pools["llm"]
    assert isinstance(pool, LLMPool)
    assert pool.hardware.engine is not None
    assert pool.hardware.engine.eager is not None
    return pool.hardware.engine.eager.layer_us


def eager_of(row: dict[str, Any], edit: Any) -> Launches:
    pool = edit(silicon.config(row)).cluster.pools["llm"]
    assert isinstance(pool, LLMPool)
    assert pool.hardware.engine is not None
    assert pool.hardware.engine.eager is not None
    return launches_of(pool.hardware.engine.eager)


def launches_of(eager: EagerSteps) -> Launches:
    return Launches(eager.experts_us, eager.latent_us, eager.delta_rule_us)


def test_a_run_is_compared_without_its_model_or_without_its_gpu() -> None:
    deepseek = row(batch_size=8, silicon_data_source="db-dump/1; silicon_concurrency=8; measured=2026-02-03")
    table = fitted()
    without_model = table["trtllm", "deepseek"]["b200_sxm"]
    assert (
        eager_of(deepseek, engine_constants.left_out(deepseek))
        == without_model
        != table["trtllm", ALL]["b200_sxm"]
    )
    without_gpu = table["trtllm", "b200_sxm"][OTHERS]
    assert eager_of(deepseek, engine_constants.gpu_left_out(deepseek)) == without_gpu
    dense = row(model_path="meta-llama/Llama-3.1-70B", precision="fp8")
    assert engine_constants.left_out(dense) is None
    assert engine_constants.left_out(deepseek | {"backend": "vllm"}) is None  # no run of it with vLLM
    kimi = deepseek | {"backend": "vllm", "model_path": "moonshotai/Kimi-K2.5", "backend_version": "0.17.0"}
    without_kimi = table["vllm", "kimi"]["b200_sxm"]
    assert eager_of(kimi, engine_constants.left_out(kimi)) == without_kimi != table["vllm", ALL]["b200_sxm"]
