"""What the engine adds to a step on an H100, as the catalog has it, worked by hand from Llama-3.1 8B and others.

23.5 µs a layer, and 5 µs more of one with experts, which are chosen unevenly (as 1 / i^0.6); all-reduces 1.45
times as long as the kernels' up to 4 MB; a sampler of 20 µs a million logits, with a sort of 100 µs and 160 µs a
million, and 480 µs for penalties; in steps of more than min(512, 2·max_num_seqs) tokens a layer takes 100 µs
more and at least 350 µs, one of experts with Triton's kernels at least 1,540 µs, and 680 µs more with latent
attention.
"""

from __future__ import annotations

import dataclasses

import pytest
from cost.by_hand import gemm_us, llama_layer_us, us
from cost.catalog import deployment, hardware, model, roofline, roofline_model

import hermes_flow as hf
from hermes_flow.config.schema import EagerSteps, EngineOverhead, Hardware, Sampling, Speculative
from hermes_flow.cost.engine_overhead import launching_in

H100 = hardware("h100_sxm")
LLAMA = model("llama3_8b")
MILLION = 128256 / 1e6  # logits of a sequence
EXPERTS_US, LAYER_US = (
    {gpu: getattr(hardware(gpu).engine.eager, key) for gpu in ("h200_sxm", "b200_sxm")}  # type: ignore[union-attr]
    for key in ("experts_us", "layer_us")
)
SORTED_US = 100 + 180 * MILLION  # of one sequence, on top of its output head


def with_engine(**changes: object) -> Hardware:
    engine = H100.engine
    assert isinstance(engine, EngineOverhead)
    return dataclasses.replace(H100, engine=dataclasses.replace(engine, **changes))  # type: ignore[arg-type]


def test_a_decode_step_is_layers_attention_head_and_sampler() -> None:
    cost = roofline(LLAMA, H100)
    attention = 1024 * 131072 / (3350e9 * 0.92) * 1e6
    expected = 32 * (llama_layer_us(1) + 23.5) + attention + gemm_us(1, 4096, 128256) + SORTED_US
    assert us(cost.step_ps([], 1, 1024)) == pytest.approx(expected, rel=1e-6)
    assert us(cost.tokens_ps[1]) == pytest.approx(32 * (llama_layer_us(1) + 23.5), rel=1e-7)
    assert set(cost.decode_attention_ps) == {0}
    assert cost.prefill_launch_ps == 0


@pytest.mark.parametrize(
    ("sampling", "fixed_us", "million_us"),
    [
        (Sampling(), 0, 20),
        (Sampling(sorted=True), 100, 180),
        (Sampling(penalties=True), 480, 20),
        (Sampling(sorted=True, penalties=True), 580, 180),
    ],
)
def test_the_sampler_takes_what_the_requests_ask_of_it(
    sampling: Sampling, fixed_us: float, million_us: float
) -> None:
    cost = roofline(dataclasses.replace(LLAMA, sampling=sampling), H100)
    for rows in (1, 64):
        expected = gemm_us(rows, 4096, 128256) + fixed_us + million_us * rows * MILLION
        assert us(cost.sequences_ps[rows]) == pytest.approx(expected, rel=1e-7)
    assert cost.sequences_ps[0] == 0


def test_the_sampler_sees_the_whole_vocabulary_however_the_head_is_cut() -> None:
    cost = roofline(LLAMA, H100, tensor_parallel=4)
    expected = gemm_us(9, 4096, 32064) + 100 + 180 * 9 * MILLION
    assert us(cost.sequences_ps[9]) == pytest.approx(expected, rel=1e-7)


def test_drafted_tokens_are_sampled_when_they_are_verified_and_not_by_the_draft() -> None:
    draft = dataclasses.replace(LLAMA, name="two_layers", layers=2)
    cost = roofline(LLAMA, H100, speculative=Speculative(draft, 4, 0.7))
    verified = gemm_us(15, 4096, 128256) - gemm_us(3, 4096, 128256) + 180 * 12 * MILLION
    drafting = 1200 + 4 * (2 * (llama_layer_us(3) + 23.5) + gemm_us(3, 4096, 128256))
    assert us(cost.decode_attention_ps[3]) == pytest.approx(verified + drafting, rel=1e-6)


# All-reduces


@pytest.mark.parametrize(
    ("devices", "tokens", "once_us"),
    [
        # one shot: α + (g − 1)·bytes/(f·450 GB/s)
        (2, 16, 4.3 + 16 * 8192 / (0.57 * 450e9) * 1e6),
        (4, 16, 4.6 + 3 * 16 * 8192 / (0.51 * 450e9) * 1e6),
        (8, 8, 4.8 + 7 * 8 * 8192 / (0.51 * 450e9) * 1e6),
        # two shots: α + 2(g − 1)/g·bytes/(.6·450 GB/s), sooner done with 1 MB
        (4, 128, 7.2 + 1.5 * 128 * 8192 / (0.6 * 450e9) * 1e6),
        (8, 128, 8.0 + 1.75 * 128 * 8192 / (0.6 * 450e9) * 1e6),
    ],
)
def test_an_all_reduce_goes_the_faster_way_and_waits_for_the_slowest_rank(
    devices: int, tokens: int, once_us: float
) -> None:
    wait, none = (roofline(LLAMA, with_engine(all_reduce_wait=w), devices) for w in (1.45, 0.0))
    found = us(wait.tokens_ps[tokens] - none.tokens_ps[tokens])
    assert found == pytest.approx(2 * 32 * 1.45 * once_us, rel=1e-6)
    assert wait == roofline(LLAMA, H100, devices)


def test_a_large_all_reduce_goes_by_nccl_and_waits_as_long_as_one_of_4_mb() -> None:
    wait, none = (roofline(LLAMA, with_engine(all_reduce_wait=w, eager=None), 8, 8192) for w in (1.45, 1.0))
    waited = us(wait.tokens_ps[8192] - none.tokens_ps[8192])
    assert waited == pytest.approx(2 * 32 * 0.45 * (8.0 + 1.75 * 4e6 / (0.6 * 450e9) * 1e6), rel=1e-6)
    double = us(none.tokens_ps[8192] - none.tokens_ps[4096])  # both beyond what two shots do faster
    free = roofline(LLAMA, with_engine(all_reduce_wait=1e-6, all_reduce_wait_mb=None, eager=None), 8, 8192)
    sent = double - us(free.tokens_ps[8192] - free.tokens_ps[4096])
    assert sent == pytest.approx(2 * 32 * 1.75 * 4096 * 8192 / 450e9 * 1e6, rel=1e-4)


def test_hops_and_exchanges_between_experts_do_not_wait() -> None:
    hop = roofline_model().hop(deployment(LLAMA, H100, 2, pipeline_parallel=2))
    assert hop.ps == 4_300_000
    mixtral = model("mixtral_8x7b")
    wait, none = (
        roofline(mixtral, with_engine(all_reduce_wait=w), data_parallel=2, expert_parallel=True)
        for w in (1.5, 0.0)
    )
    assert wait.tokens_ps == none.tokens_ps


# Mixtures


def test_of_a_mixture_only_the_routed_experts_are_launched_apart() -> None:
    scout = model("llama4_scout")
    tokens = 9
    popularity = [1 / place**0.6 for place in range(1, 17)]
    distinct = sum(1 - (1 - one / sum(popularity)) ** tokens for one in popularity)
    layer = (
        gemm_us(tokens, 5120, 7168)
        + gemm_us(tokens, 5120, 5120)
        + gemm_us(tokens, 5120, 16)
        - 3.8
        + experts_us(tokens, 5120, 16384, distinct)
        + experts_us(tokens, 8192, 5120, distinct)
        + gemm_us(tokens, 5120, 16384)
        - 3.8
        + gemm_us(tokens, 8192, 5120)
        - 3.8
    )
    found = us(roofline(scout, H100).tokens_ps[tokens])
    small = 2 * 3.9  # norms of queries and keys, and the sum of shared and routed experts
    assert found == pytest.approx(48 * (layer + 23.5 + 5 + small), rel=1e-6)


def experts_us(rows: int, ins: int, outs: int, matrices: float) -> float:
    """One product of routed experts in bf16, whose rows fill tiles."""
    flops = 2.0 * (rows + 181 * matrices) * ins * outs / (989e12 * 0.58)
    traffic = 2.0 * (rows * ins + rows * outs + matrices * ins * outs) / (3350e9 * 0.92)
    return max(flops, traffic) * 1e6 + 17.1


# Steps without CUDA graphs


@pytest.mark.parametrize(("sequences", "captured"), [(64, 128), (1024, 512)])
def test_steps_beyond_the_captured_graphs_have_gaps_and_take_at_least_their_launches(
    sequences: int, captured: int
) -> None:
    cost = roofline(LLAMA, H100, 1, 4096, sequences)
    free = roofline(LLAMA, with_engine(eager=None), 1, 4096, sequences)
    assert cost.tokens_ps[: captured + 1] == free.tokens_ps[: captured + 1]
    first = max(32 * 350.0, us(free.tokens_ps[captured + 1]) + 32 * 100)
    assert us(cost.tokens_ps[captured + 1]) == pytest.approx(first)
    assert us(cost.tokens_ps[4096]) == pytest.approx(us(free.tokens_ps[4096]) + 32 * 100)
    assert free.tokens_ps[4096] > 32 * 350 * 1_000_000


def test_launching_experts_takes_longer() -> None:
    mixtral = model("mixtral_8x7b")
    cost = roofline(mixtral, H100, 2, 600)
    assert us(cost.tokens_ps[600]) == pytest.approx(32 * 1540)
    deepseek = model("deepseek_v3")  # three dense layers of 61, all with latent attention
    latent_us = 61 * 680
    assert us(roofline(deepseek, H100, 8, 300).tokens_ps[300]) == pytest.approx(
        3 * 350 + 58 * 1540 + latent_us
    )


def test_experts_with_kernels_of_other_libraries_launch_in_less_time_than_with_triton_s() -> None:
    def least_us(name: str, gpu: str, devices: int, spread: bool = False, **precision: str) -> float:
        found = model(name)
        found = dataclasses.replace(found, precision=dataclasses.replace(found.precision, **precision))
        return us(roofline(found, hardware(gpu), devices, 150, 8, expert_parallel=spread).tokens_ps[150])

    in_fp8 = {"weights": "fp8", "activations": "fp8"}
    h200, b200 = least_us("minimax_m2_5", "h200_sxm", 8, **in_fp8), EXPERTS_US["b200_sxm"]
    assert h200 == pytest.approx(62 * 1540)  # where devices cut experts on Hopper, they have Triton's kernels
    spread = least_us("minimax_m2_5", "h200_sxm", 8, spread=True, **in_fp8)
    assert spread == pytest.approx(62 * EXPERTS_US["h200_sxm"])  # FlashInfer's
    assert least_us("minimax_m2_5", "b200_sxm", 8, **in_fp8) == pytest.approx(62 * b200)
    assert least_us("gpt_oss_120b", "b200_sxm", 8, activations="fp8") == pytest.approx(36 * b200)
    in_4_bits = least_us("kimi_k2_5", "h200_sxm", 8)  # Marlin's, with a dense layer and latent attention
    assert in_4_bits == pytest.approx(LAYER_US["h200_sxm"] + 60 * EXPERTS_US["h200_sxm"] + 61 * 680)


def test_launching_latent_attention_takes_longer_on_tensorrt_llm() -> None:
    gpu = (
        hf.compose(["hardware=b200_sxm", "engine=tensorrt_llm", "pipeline=llm"]).cluster.pools["llm"].hardware
    )
    deepseek = roofline(model("deepseek_v3"), gpu, 8, 600)
    assert us(deepseek.tokens_ps[600]) == pytest.approx(3 * 480 + 58 * 1040 + 61 * 1460)
    assert "1040 µs of experts, 1460 µs more for latent attention" in " ".join(deepseek.provenance)
    other = roofline(model("gpt_oss_120b"), gpu, 8, 600)
    assert us(other.tokens_ps[600]) == pytest.approx(36 * 1040)
    assert "latent" not in " ".join(other.provenance)


def test_a_slower_host_launches_for_longer() -> None:
    slow = dataclasses.replace(H100, launching=2.0)
    cost, usual = roofline(LLAMA, slow, 1, 300), roofline(LLAMA, H100, 1, 300)
    assert us(cost.tokens_ps[300]) == pytest.approx(2 * 32 * 350) == 2 * us(usual.tokens_ps[300])
    assert "at least 700 µs a layer" in " ".join(cost.provenance)
    assert cost.tokens_ps[2] == usual.tokens_ps[2]  # in a CUDA graph
    in_triton = roofline(model("mixtral_8x7b"), slow, 2, 600)
    assert us(in_triton.tokens_ps[600]) == pytest.approx(2 * 32 * 1540)


def test_a_slower_host_lengthens_all_launches_and_no_gap() -> None:
    names = [each.name for each in dataclasses.fields(EagerSteps) if each.name.endswith("_us")]
    eager = EagerSteps(above_tokens=1, above_per_sequence=1, **dict.fromkeys(names, 100.0))
    engine = with_engine(eager=eager).engine
    assert engine is not None
    found = launching_in(engine, 1.5).eager
    assert found == dataclasses.replace(eager, **{name: 150.0 for name in names if name != "gap_us"})


def test_hosts_of_b300_launch_by_their_clock() -> None:
    b300, b200 = (hf.compose([f"hardware={name}"]).hardware for name in ("b300_sxm", "b200_sxm"))
    assert (b300.launching, b200.launching) == (0.87, 1.0)
    assert b300.engine.eager == b200.engine.eager


def test_every_pipeline_stage_launches_its_layers_and_neither_drafts_nor_encoders_are_held_up() -> None:
    stage = roofline(LLAMA, H100, 1, 300, pipeline_parallel=2, part="upstream")
    assert us(stage.tokens_ps[300]) == pytest.approx(16 * 350)
    for part in ("draft", "encoder"):
        plain = roofline(LLAMA, with_engine(eager=None), 1, 300, part=part)
        assert roofline(LLAMA, H100, 1, 300, part=part).tokens_ps == plain.tokens_ps


# What is said of it


def test_the_origin_names_the_terms_and_how_they_were_found() -> None:
    kernels, engine = roofline(LLAMA, H100, 2).provenance
    assert "fit to AIConfigurator's measured operator tables" in kernels
    assert engine.startswith(
        "engine: 23.5 µs a layer, all-reduces × 1.45, sampling with top-p/top-k, without CUDA graphs "
        "100 µs more and at least 350 µs a layer, 8 ms ingest; vLLM 0.15 on H100, fitted to 27 serving runs"
    )
    experts, mixture = roofline(model("mixtral_8x7b"), H100).provenance[1:3]
    assert experts == "routed experts in bf16: as fitted to measured kernels of such experts"
    assert (
        "plain sampling, without CUDA graphs 100 µs more and at least 350 µs a layer, 1540 µs of experts, 8 ms"
        in mixture
    )
    assert "top-p/top-k and penalties" in roofline(model("qwen2_5_7b"), H100).provenance[1]


@pytest.mark.parametrize("name", ["a100_sxm", "h200_sxm", "b200_sxm", "l40s", "mi300x", "mi355x"])
def test_other_data_center_gpus_have_the_same_engine_and_a_sampler_by_their_bandwidth(name: str) -> None:
    gpu, h100 = hardware(name), hardware("h100_sxm")
    engine, known = gpu.engine, h100.engine
    assert engine is not None
    assert known is not None
    assert (engine.layer_us, engine.ingest_ms) == (known.layer_us, known.ingest_ms)
    assert engine.eager is not None
    assert known.eager is not None
    if name != "b200_sxm":  # has runs of its own
        launched_us = known.eager.experts_us  # which is fitted to runs of each GPU
        assert dataclasses.replace(engine.eager, experts_us=launched_us) == known.eager
    assert engine.all_reduce_wait == (
        1.0 if name == "l40s" else known.all_reduce_wait
    )  # over PCIe it is not known
    assert engine.sampler is not None
    assert known.sampler is not None
    ratio = h100.bandwidth_gb_s / gpu.bandwidth_gb_s
    assert engine.sampler.us_per_million == pytest.approx(20 * ratio, abs=0.06)
    sort_us = 160 if name == "l40s" else 160 * ratio  # its L2 cache holds what is sorted
    assert engine.sampler.sort_us_per_million == pytest.approx(sort_us, abs=0.6)
    assert (engine.sampler.sort_us, engine.sampler.penalty_us) == (
        known.sampler.sort_us,
        known.sampler.penalty_us,
    )


def test_workstation_gpus_and_tpus_have_the_overheads_of_a_prototype() -> None:
    for name in ("rtx4090", "rtx_pro_6000", "rtx_a6000", "tpu_v6e"):
        engine = hardware(name).engine
        assert engine is not None
        assert (engine.step_us, engine.sequence_us, engine.attention_launch) == (500, 8, 0.25)
        assert (engine.layer_us, engine.all_reduce_wait, engine.sampler, engine.eager) == (
            None,
            1.0,
            None,
            None,
        )
