"""Steps from tables per GPU and operator: small tables by hand, every expected time worked out from their lines."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cost.by_hand import us
from cost.catalog import hardware, model
from cost.measured import (
    H100,
    MIXTURE,
    SMALL,
    decode_us,
    gemm_rows,
    kernels,
    prefill_us,
    product_us,
    write,
    write_gpu,
)

import hermes_flow as hf
from hermes_flow.config.schema import AllReduceFit, ModelPrecision, Sampling, Speculative
from hermes_flow.cost.kernels.reduce import DecodePoints, decode_form
from hermes_flow.errors import CompileError, ConfigError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_gpu(tmp_path)


def layer_us(rows: float) -> float:
    shapes = ((2048, 1024), (1024, 1024), (2048, 1024), (1024, 1024))  # qkv, out, gate and up, down
    return sum(product_us(rows, out, wide) for out, wide in shapes)


def test_a_step_is_the_sum_of_the_measured_operators(folder: Path) -> None:
    cost = kernels(folder)
    for tokens in (1, 40, 512):
        assert us(cost.tokens_ps[tokens]) == pytest.approx(2 * layer_us(tokens))
    assert us(cost.sequences_ps[64]) == pytest.approx(product_us(64, 4096, 1024))
    assert us(cost.step_ps([], 4, 4 * 512)) == pytest.approx(
        2 * layer_us(4) + 2 * decode_us(4, 512) + product_us(4, 4096, 1024), rel=1e-6
    )
    assert us(cost.step_ps([(256, 0)], 0, 0)) == pytest.approx(
        2 * layer_us(256) + 2 * prefill_us(256) + product_us(1, 4096, 1024), rel=1e-3
    )


def test_times_are_linear_between_the_measured_numbers_of_sequences(folder: Path) -> None:
    cost = kernels(folder)
    assert us(cost.decode_attention_ps[10]) == pytest.approx(2 * decode_us(10, 0), rel=1e-6)
    assert us(cost.context_ps) == pytest.approx(2 * 0.002, rel=1e-6)
    assert cost.decode_attention_ps[0] == cost.tokens_ps[0] == cost.sequences_ps[0] == 0


def test_widths_between_the_measured_ones_are_interpolated(folder: Path) -> None:
    shape = dataclasses.replace(SMALL, intermediate_size=768, vocab_size=3000)
    found = us(kernels(folder, shape).tokens_ps[100])
    shapes = ((2048, 1024), (1024, 1024), (1536, 1024), (1024, 768))
    assert found == pytest.approx(2 * sum(product_us(100, out, wide) for out, wide in shapes))
    assert us(kernels(folder, shape).sequences_ps[8]) == pytest.approx(product_us(8, 3000, 1024))


def test_a_point_slower_than_a_larger_one_is_lowered_to_it_and_counted(folder: Path) -> None:
    write(
        folder / "x1__gemm_perf.csv",
        "gemm_dtype,m,n,k,latency",
        gemm_rows(lambda m, n, k: product_us(m, n, k) * (3.0 if (m, n, k) == (64, 2048, 1024) else 1.0)),
    )
    cost = kernels(folder)
    lowered = 2 * (product_us(512, 2048, 1024) - product_us(64, 2048, 1024))  # of qkv, and of gate and up
    assert us(cost.tokens_ps[64]) == pytest.approx(2 * (layer_us(64) + lowered))
    assert "2 points slower than a larger one" in cost.provenance[0]


def test_of_two_files_the_faster_kernel_counts_at_each_point(folder: Path) -> None:
    rows = gemm_rows(lambda m, n, k: product_us(m, n, k) * (0.9 if m == 512 else 2.0))
    write(folder / "x2__gemm_perf.csv", "gemm_dtype,m,n,k,latency", rows)
    cost = kernels(folder)
    assert us(cost.tokens_ps[512]) == pytest.approx(2 * 0.9 * layer_us(512))
    assert us(cost.tokens_ps[1]) == pytest.approx(2 * layer_us(1))


def test_fp8_takes_the_fastest_of_all_fp8_kernels(folder: Path) -> None:
    rows = gemm_rows() + gemm_rows(lambda *shape: 9 * product_us(*shape), "fp8")
    rows += gemm_rows(lambda *shape: 0.6 * product_us(*shape), "fp8_block")
    write(folder / "x1__gemm_perf.csv", "gemm_dtype,m,n,k,latency", rows)
    shape = dataclasses.replace(SMALL, precision=ModelPrecision(weights="fp8"))
    cost = kernels(folder, shape)
    assert us(cost.tokens_ps[40]) == pytest.approx(2 * 0.6 * layer_us(40))
    assert us(cost.sequences_ps[40]) == pytest.approx(product_us(40, 4096, 1024))  # the head stays bf16


def test_more_kv_heads_than_measured_are_as_many_more_sequences(tmp_path: Path) -> None:
    folder = write_gpu(tmp_path, heads=4, kv_heads=4)
    write(
        folder / "x1__context_attention_perf.csv",
        "num_heads,num_key_value_heads,head_dim,kv_cache_dtype,batch_size,step,isl,latency",
        [(8, 8, 128, "bfloat16", 1, 0, c, prefill_us(c) / 1000) for c in (1, 64, 256, 1024)],
    )
    cost = kernels(folder, dataclasses.replace(SMALL, kv_heads=8))
    assert us(cost.step_ps([], 8, 8 * 512) - cost.step_ps([], 8, 0)) == pytest.approx(
        2 * (decode_us(16, 512) - decode_us(16, 0)), rel=1e-6
    )
    assert us(cost.decode_attention_ps[8]) == pytest.approx(2 * decode_us(16, 0), rel=1e-6)
    assert "decode attention of 8 KV heads: as 4 of more sequences" in cost.provenance


def test_heads_between_the_measured_ones_take_the_next_more(folder: Path) -> None:
    cost = kernels(folder, dataclasses.replace(SMALL, heads=6, kv_heads=4))
    assert us(cost.decode_attention_ps[16]) == pytest.approx(2 * decode_us(16, 0), rel=1e-6)
    assert us(cost.prefill_launch_ps) == pytest.approx(2 * 8.0 * 6 / 8, rel=1e-3)
    assert "attention of 6 heads over 4: as 8 heads" in cost.provenance


# Collectives


def all_reduces(folder: Path) -> None:
    rows = [("all_reduce", backend, 2, 2**p, (5 + 2**p / 1e6) / 1000) for backend in ("vllm_graph", "vllm_eager")
            for p in (8, 14, 20)]  # fmt: skip
    write(
        folder / "x1__custom_allreduce_perf.csv",
        "op_name,backend,num_gpus,message_size,latency",
        [row if row[1] == "vllm_graph" else (*row[:-1], 9.0) for row in rows],
    )


def test_tensor_parallelism_adds_two_measured_all_reduces_a_layer(tmp_path: Path) -> None:
    folder = write_gpu(tmp_path, 4, 2)
    write(folder / "x1__gemm_perf.csv", "gemm_dtype,m,n,k,latency", gemm_rows(lambda *_: 30.0))
    all_reduces(folder)
    alone = 2 * 4 * 30.0
    for wait in (1.0, 1.5):
        found = us(kernels(folder, devices=2, all_reduce_wait=wait).tokens_ps[64])
        assert found == pytest.approx(alone + 2 * 2 * wait * (5 + 64 * 1024 / 1e6))
    normed = dataclasses.replace(SMALL, norm_over_all_heads=True)  # 8 bytes a token more
    more = us(kernels(folder, normed, devices=2, all_reduce_wait=1.5).tokens_ps[64]) - found
    assert more == pytest.approx(2 * (5 + 64 * 4 / 1e6))


def test_without_a_table_of_them_the_catalog_s_figures_stand_in_as_they_are(tmp_path: Path) -> None:
    folder = write_gpu(tmp_path, 4, 2)

    def step(*fits: AllReduceFit, **figures: Any) -> int:
        assert H100.efficiency is not None
        known = dict(zip((2,), fits, strict=False))
        machine = dataclasses.replace(H100, efficiency=dataclasses.replace(H100.efficiency, all_reduce=known))
        return kernels(folder, machine=machine, devices=2, **figures).tokens_ps[64]

    base = step(AllReduceFit(alpha_us=7.0, fraction=0.5))
    assert step(AllReduceFit(alpha_us=7.0, fraction=0.5), all_reduce_wait=9.0) == base
    wait = 1.45  # of the catalog, which their figures go with
    assert us(step(AllReduceFit(alpha_us=9.0, fraction=0.5)) - base) == pytest.approx(2 * 2 * 2.0 * wait)
    sent = 64 * 1024 * 2  # bytes, times 2(g − 1)/g = 1
    longer = wait * 2 * 2 * sent / 450e9 * (1 / 0.25 - 1 / 0.5) * 1e6
    assert us(step(AllReduceFit(alpha_us=7.0, fraction=0.25)) - base) == pytest.approx(longer)
    with pytest.raises(ConfigError, match=r"efficiency.all_reduce.2: missing, and .* has no table"):
        step()


# Experts


def experts(folder: Path, distribution: str = "balanced") -> None:
    shape = "bfloat16,1024,1024,2,8,1,1"
    write(
        folder / "x1__moe_perf.csv",
        "moe_dtype,hidden_size,inter_size,topk,num_experts,moe_tp_size,moe_ep_size,num_tokens,distribution,latency",
        [(shape, t, distribution, (20 * min(8, 2 * t) + 0.5 * t) / 1000) for t in (1, 2, 4, 64, 512)],
    )
    rows = [*gemm_rows(), *(("bfloat16", m, 8, 1024, 0.002) for m in (1, 512))]
    write(folder / "x1__gemm_perf.csv", "gemm_dtype,m,n,k,latency", rows)


@pytest.mark.parametrize("skew", [0.0, 0.6])
def test_few_tokens_draw_fewer_experts_than_they_could(folder: Path, skew: float) -> None:
    experts(folder)
    mixture = dataclasses.replace(MIXTURE, experts=dataclasses.replace(MIXTURE.experts, routing_skew=skew))
    attention = sum(product_us(2, out, 1024) for out in (2048, 1024))
    router = (2.0 + 2.0) / 2 + 0.0  # the table's 2 µs at width 8, whatever the rows
    chosen = 2 * np.arange(1, 9) ** -skew / (np.arange(1, 9) ** -skew).sum()
    drawn = 4 - (chosen**2).sum()  # even: 3.5 of the 4 that two tokens could draw, as 1.75 tokens
    expected = 20 * drawn + 0.5 * drawn / 2
    assert us(kernels(folder, mixture).tokens_ps[2]) == pytest.approx(
        2 * (attention + expected + router), rel=1e-3
    )
    many = 20 * 8 + 0.5 * 64
    attention = sum(product_us(64, out, 1024) for out in (2048, 1024))
    assert us(kernels(folder, mixture).tokens_ps[64]) == pytest.approx(
        2 * (attention + many + router), rel=1e-3
    )


def test_experts_of_another_shape_are_not_made_up(folder: Path) -> None:
    experts(folder)
    other = dataclasses.replace(MIXTURE, experts=dataclasses.replace(MIXTURE.experts, count=16))
    with pytest.raises(ConfigError, match=r"cost.path: .*: no experts in bf16 with .*num_experts 16"):
        kernels(folder, other)


# What the engine adds


def test_the_engine_adds_its_times_to_the_operators(folder: Path) -> None:
    plain = kernels(folder)
    cost = kernels(folder, step_us=100, layer_us=7, sequence_us=3, ingest_ms=2, attention_skew=1.5)
    assert us(cost.tokens_ps[9] - plain.tokens_ps[9]) == pytest.approx(100 + 2 * 7)
    assert us(cost.sequences_ps[9] - plain.sequences_ps[9]) == pytest.approx(27)
    assert cost.context_ps == pytest.approx(1.5 * plain.context_ps)
    assert cost.ingest_ns == 2_000_000


def test_the_sampler_takes_what_the_models_requests_need_of_it(folder: Path) -> None:
    figures = {"us_per_million": 20, "sort_us": 100, "sort_us_per_million": 125, "penalty_us": 70}
    plain = kernels(folder).sequences_ps[32]
    millions = 32 * 4096 / 1e6
    for sampling, extra in (
        (Sampling(), 20 * millions),
        (Sampling(sorted=True), 100 + 145 * millions),
        (Sampling(sorted=True, penalties=True), 170 + 145 * millions),
    ):
        shape = dataclasses.replace(SMALL, sampling=sampling)
        found = kernels(folder, shape, sampler=figures).sequences_ps[32]
        assert us(found - plain) == pytest.approx(extra)


def test_steps_beyond_the_captured_graphs_take_at_least_their_launches(folder: Path) -> None:
    eager = {"above_tokens": 512, "above_per_sequence": 2, "layer_us": 5000, "experts_us": 9000}
    cost = kernels(folder, eager=eager, max_sequences=64)
    assert us(cost.tokens_ps[129]) == us(cost.tokens_ps[512]) == pytest.approx(2 * 5000)
    assert us(cost.tokens_ps[128]) == pytest.approx(2 * layer_us(128))
    gaps = kernels(folder, eager={**eager, "layer_us": 1, "gap_us": 70}, max_sequences=64)
    assert us(gaps.tokens_ps[200]) == pytest.approx(2 * (layer_us(200) + 70))


# Ranges and reductions


def test_sizes_outside_the_tables_are_extrapolated_counted_and_strictly_refused(folder: Path) -> None:
    cost = kernels(folder, max_tokens=1024)
    assert us(cost.tokens_ps[1024]) == pytest.approx(2 * layer_us(1024))
    assert "outside the tables, extrapolated: rows of qkv, 512 of 1,024 outside 0 to 512, up to 1,024" in (
        cost.provenance
    )
    with pytest.raises(ConfigError, match=r"cost.strict: outside the tables of .*rows of qkv"):
        kernels(folder, max_tokens=1024, strict=True)
    kernels(folder, strict=True)


def test_what_the_reduction_loses_is_told() -> None:
    four = np.full(2, 4.0)
    exact = decode_form(DecodePoints(four, np.array([100.0, 300.0]), np.array([9.0, 17.0])))
    assert exact.slope_us == pytest.approx(0.01)
    assert exact.misfit.worst == pytest.approx(0.0, abs=1e-9)
    # One line for 10 and 20 µs at the same context: 12 µs has the least squared relative error.
    torn = decode_form(DecodePoints(four, np.full(2, 100.0), np.array([10.0, 20.0])))
    assert str(torn.misfit) == "30.0 % off on average, at most 40 %, of 2 points"


def test_the_origin_names_files_and_misfits(folder: Path) -> None:
    text = "\n".join(kernels(folder).provenance)
    assert "x1__gemm_perf.csv (27 rows)" in text
    assert "decode attention as a line: 0.0 % off on average, at most 0 %, of 16 points" in text
    assert "prefill by its pairs: 0.0 % off" in text


# Faults


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("fast", "x1__gemm_perf.csv:3: latency is 'fast'; expected a positive number"),
        ("-1", "x1__gemm_perf.csv:3: latency is '-1'; expected a positive number"),
        ("", "x1__gemm_perf.csv:3: latency is empty; expected a positive number"),
    ],
)
def test_a_faulty_cell_is_named_by_file_and_line(folder: Path, cell: str, message: str) -> None:
    path = folder / "x1__gemm_perf.csv"
    lines = path.read_text().splitlines()
    lines[2] = f"bfloat16,1,1024,1024,{cell}"
    path.write_text("\n".join(lines))
    with pytest.raises(ConfigError) as caught:
        kernels(folder)
    assert str(caught.value) == f"cost.path: {folder}/{message}"


def test_times_in_another_unit_are_noticed(folder: Path) -> None:
    write(
        folder / "x1__gemm_perf.csv",
        "gemm_dtype,m,n,k,latency",
        gemm_rows(lambda *shape: product_us(*shape) * 1000),  # microseconds
    )
    with pytest.raises(
        ConfigError, match=r"x1__gemm_perf.csv:28: latency .* times the peak of h100_sxm; expected"
    ):
        kernels(folder)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("x1__gemm_perf.csv", "neither dense nor gemm tables"),
        ("x1__generation_attention_perf.csv", "no table of generation_attention"),
        ("x1__context_attention_perf.csv", "no table of context_attention"),
    ],
)
def test_a_missing_table_is_named(folder: Path, name: str, message: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ConfigError, match=f"cost.path: {folder}: {message}"):
        kernels(folder)


def test_a_missing_column_is_named_with_those_there_are(folder: Path) -> None:
    write(folder / "x1__gemm_perf.csv", "gemm_dtype,m,n,latency", [("bfloat16", 1, 2, 3)])
    with pytest.raises(ConfigError, match=r"lacks the column 'k' \(it has: gemm_dtype, m, n, latency\)"):
        kernels(folder)


@pytest.mark.parametrize(
    ("place", "key"),
    [
        ({"pipeline_parallel": 2}, "pipeline_parallel"),
        ({"data_parallel": 2}, "data_parallel"),
        ({"expert_parallel": True}, "expert_parallel"),
        ({"speculative": Speculative(draft=SMALL, tokens=2)}, "speculative"),
    ],
)
def test_what_no_table_holds_is_refused_by_its_key(folder: Path, place: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        kernels(folder, place=place)
    assert caught.value.key == f"cluster.pools.llm.{key}"


def test_shapes_without_a_measurement_are_refused(folder: Path) -> None:
    for shape, message in (
        (dataclasses.replace(SMALL, head_dim=64), r"no attention with heads of 64 \(measured: 128\)"),
        (dataclasses.replace(SMALL, heads=32, kv_heads=4), "no attention with 32 heads and 4 KV heads"),
        (dataclasses.replace(SMALL, precision=ModelPrecision(weights="int8")), "no products of int8 weights"),
        (dataclasses.replace(SMALL, precision=ModelPrecision(kv_cache="fp8")), "no attention"),
    ):
        with pytest.raises(ConfigError, match=message):
            kernels(folder, shape)


# The public way


SMALL_KEYS = [
    *(
        "model.layers=2",
        "model.hidden_size=1024",
        "model.heads=8",
        "model.kv_heads=4",
        "model.vocab_size=4096",
    ),
    *("model.intermediate_size=1024", "cluster.pools.llm.max_num_batched_tokens=512", "workload.requests=20"),
]


def test_a_run_takes_its_steps_from_the_tables(folder: Path) -> None:
    program = hf.compile(hf.compose(["cost=kernels", f"cost.path={folder}", *SMALL_KEYS]))
    assert "x1__gemm_perf.csv (27 rows)" in " ".join(str(program).split())
    assert hf.simulate(program).summary["requests"]["completed"] == 20


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["cost.path=nowhere"], "cost.path: nowhere: no such folder"),
        (["cost.path=nowhere", "cost.layer_us=-1"], "cost.layer_us: -1 is out of range"),
        ([], "cost.path: missing"),
        (["cost.path=nowhere", "cost.format=parquet"], "cost.format: 'parquet' is not valid"),
    ],
)
def test_a_faulty_configuration_is_told_by_its_key(overrides: list[str], message: str) -> None:
    with pytest.raises(CompileError) as caught:
        hf.compile(hf.compose(["cost=kernels", *overrides]))
    assert message in str(caught.value)


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("gpu", "name", "devices"),
    [("h100_sxm", "llama2_70b", 4), ("h200_sxm", "qwen2_5_7b", 1), ("a100_sxm", "llama3_8b", 2),
     ("b200_sxm", "llama3_70b", 8), ("l40s", "llama3_8b", 1), ("h100_sxm", "mixtral_8x7b", 2)],
)  # fmt: skip
def test_public_tables_agree_with_the_roofline_fitted_to_them(
    shared_data: Path, gpu: str, name: str, devices: int
) -> None:
    from cost.catalog import roofline

    shape, machine = model(name), hardware(gpu)
    assert machine.engine is not None
    machine = dataclasses.replace(machine, engine=dataclasses.replace(machine.engine, eager=None))
    measured = kernels(shared_data / "kernels" / gpu, shape, machine, devices, 2048, 128)
    fitted = roofline(shape, machine, devices, 2048, 128)
    for tokens in (1, 32, 128, 1024):
        ratio = measured.tokens_ps[tokens] / (fitted.tokens_ps[tokens])
        assert 0.6 < ratio < 1.35, tokens
