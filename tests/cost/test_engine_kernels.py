"""An engine's own kernels take the place of those that the hardware's efficiency has, figure by figure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import hermes_flow as hf
from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.step_cost import StepCost

FP8 = tuple(f"model.precision.{name}=fp8" for name in ("weights", "activations", "kv_cache"))
SHORT = ("pipeline=llm", "workload=synthetic", "workload.requests=20")


def cost(*overrides: str) -> StepCost:
    """The tables of the steps of the pool of language models."""
    compiled = hf.compile(hf.compose([*SHORT, *overrides]))
    (spec,) = (pool.client for pool in compiled.pools if isinstance(pool.client, LLMClientSpec))
    return spec.cost


def on_h200(*overrides: str) -> StepCost:
    return cost("hardware=h200_sxm", "model=llama3_8b", "engine=tensorrt_llm", *overrides)


def test_decodes_read_kv_as_the_engine_was_measured_to() -> None:
    own, hardwares = on_h200(*FP8), on_h200(*FP8, "hardware.engine.kernels=null")
    # 32 layers of 8 heads of keys and values of 128 bytes
    read_s = 32 * 2 * 8 * 128 / 4.8e12
    assert own.context_ps == pytest.approx(1e12 * read_s / 0.947, rel=1e-3)
    assert hardwares.context_ps == pytest.approx(1e12 * read_s / 0.61, rel=1e-3)


def test_without_own_kernels_a_step_takes_what_those_of_the_hardware_take() -> None:
    plain = ("hardware=h200_sxm", "model=mixtral_8x7b", "cluster.pools.llm.tensor_parallel=2")
    tensorrt = (
        *("engine=tensorrt_llm", "hardware.engine.kernels=null", "hardware.engine.experts=null"),
        "hardware.engine.dependent_launches=false",
    )
    own, vllm = cost(*plain, *tensorrt), cost(*plain, "engine=vllm")
    assert own.tokens_ps[:64] == vllm.tokens_ps[:64]
    assert own.prefill_pair_ps == vllm.prefill_pair_ps
    assert not np.allclose(
        cost(*plain, "engine=tensorrt_llm").tokens_ps[1:64], own.tokens_ps[1:64], rtol=1e-3
    )


def test_gpus_with_the_kernels_of_b200_have_those_of_the_engine_as_well() -> None:
    engines = [
        hf.compose(["engine=tensorrt_llm", f"hardware={gpu}"]).hardware.engine
        for gpu in ("b200_sxm", "gb200", "b300_sxm", "gb300")
    ]
    assert engines[0] is not None
    assert engines[0].kernels is not None
    assert engines[0].experts is not None
    assert engines[1:] == [engines[0]] * 3


def test_attention_over_prompts_goes_by_the_precision_of_the_kv() -> None:
    def pair_ps(*overrides: str) -> float:
        return cost("hardware=h200_sxm", *overrides).prefill_pair_ps

    llama, tensorrt = "model=llama3_8b", "engine=tensorrt_llm"
    in_bf16, in_fp8 = (pair_ps(llama, tensorrt, f"model.precision.kv_cache={kv}") for kv in ("bf16", "fp8"))
    assert in_bf16 / in_fp8 == pytest.approx(0.809 / 0.575)
    # prompts of latent attention are widened to heads in bf16
    deepseek = ("model=deepseek_v3", "cluster.pools.llm.tensor_parallel=8", *FP8)
    both = [pair_ps(*deepseek, tensorrt, f"model.precision.kv_cache={kv}") for kv in ("bf16", "fp8")]
    assert both[0] == both[1]
    assert both[0] / pair_ps(*deepseek) == pytest.approx(0.64 / 0.575)


def test_a_single_figure_of_the_kernels_is_replaced() -> None:
    changed = on_h200(*FP8, "hardware.engine.kernels.decode_attention.fp8.memory=0.4735")
    assert changed.context_ps == pytest.approx(2 * on_h200(*FP8).context_ps, rel=1e-4)


def test_kernels_of_an_engine_of_ones_own_are_taken_and_named() -> None:
    given = (
        "+engine.overheads.h100_sxm.kernels={source: measured here, decode_attention: "
        "{bf16: {memory: 0.46, launch_us: 5, extra_tokens: 0}}}"
    )
    base, own = cost("model=llama3_8b"), cost("model=llama3_8b", given)
    assert own.context_ps == pytest.approx(2 * base.context_ps, rel=1e-4)
    assert own.tokens_ps == base.tokens_ps
    assert "kernels of the engine in their place: decode attention (bf16): measured here" in own.provenance


def test_kernels_of_an_engine_without_figures_are_refused() -> None:
    with pytest.raises(
        hf.HermesFlowError, match=r"engine\.kernels: no figures; expected gemm, .* or all_reduce"
    ):
        cost("model=llama3_8b", "hardware.engine.kernels={source: nowhere}")


def test_the_program_says_which_kernels_of_the_engine_hold() -> None:
    mixture = ("hardware=h200_sxm", "model=gpt_oss_120b", "engine=tensorrt_llm")
    own = " ".join(cost(*mixture).provenance)
    assert "matrix products (bf16, fp8, fp8_block), decode attention (bf16, fp8)" in own
    assert "all-reduce of devices (2, 4, 8): fit to AIConfigurator" in own
    assert "routed experts in mxfp4: as fitted to the engine's measured kernels of such experts" in own
    others = " ".join(cost(*mixture, "hardware.engine.experts=null").provenance)
    assert "routed experts in mxfp4: as fitted to measured kernels of such experts" in others


def test_kernels_of_another_hardware_are_named_by_a_name_of_the_catalog() -> None:
    def warnings(name: str) -> str:
        compiled = hf.compile(
            hf.compose([*SHORT, "hardware=gb200", f"hardware.efficiency.kernels_of={name}"])
        )
        return " ".join(compiled.warnings)

    assert "efficiency.kernels_of: 'b200_smx' is no hardware; did you mean 'b200_sxm'?" in warnings(
        "b200_smx"
    )
    assert "kernels_of" not in warnings("b200_sxm")
    with pytest.raises(hf.HermesFlowError, match=r"cost\.unmeasured\.kernels_of: b200_sxm, .*expected null"):
        cost("hardware=rtx4090", "cost.unmeasured.kernels_of=b200_sxm")


@pytest.mark.parametrize("exchange", ["alltoall", "allgather_reducescatter"])
def test_exchanges_between_experts_do_not_go_by_the_all_reduces_of_the_engine(exchange: str) -> None:
    ranks = (
        *("hardware=h200_sxm", "model=qwen3_30b_a3b", "engine=tensorrt_llm"),
        *("cluster.pools.llm.data_parallel=4", "cluster.pools.llm.expert_parallel=true"),
        f"cluster.pools.llm.all2all_backend={exchange}",
    )
    slow = "hardware.engine.kernels.all_reduce={4: {alpha_us: 500, fraction: 0.1, one_shot: null}}"
    assert cost(*ranks, slow).tokens_ps == cost(*ranks).tokens_ps
    cut = (
        "hardware=h200_sxm",
        "model=llama3_8b",
        "engine=tensorrt_llm",
        "cluster.pools.llm.tensor_parallel=4",
    )
    # two all-reduces in each of 32 layers, which wait
    longer = cost(*cut, slow).tokens_ps[1] - cost(*cut).tokens_ps[1]
    assert longer == pytest.approx(64 * 1.45 * (500e6 - 3e6), rel=1e-2)


def test_a_figure_of_the_hardware_that_the_engine_has_of_its_own_is_named_as_without_effect() -> None:
    def warnings(*overrides: str) -> str:
        config = hf.compose([*SHORT, "hardware=h200_sxm", *FP8, *overrides])
        return " ".join(hf.compile(config).warnings)

    without_effect = "hardware.efficiency.gemm.fp8.memory: 0.5 has no effect"
    given = "hardware.efficiency.gemm.fp8.memory=0.5"
    assert without_effect in warnings(given, "engine=tensorrt_llm")
    assert without_effect not in warnings(given)


def tpot_s(*overrides: str) -> Any:
    return hf.simulate(hf.compile(hf.compose([*SHORT, *overrides]))).requests["tpot_s"].mean()


def test_tensorrt_llm_decodes_faster_on_h200_than_with_the_kernels_of_vllm() -> None:
    shape = ("hardware=h200_sxm", "model=llama3_70b", "cluster.pools.llm.tensor_parallel=4", *FP8)
    own = tpot_s(*shape, "engine=tensorrt_llm")
    other = tpot_s(*shape, "engine=tensorrt_llm", "hardware.engine.kernels=null")
    assert 0.8 * other < own < 0.95 * other
