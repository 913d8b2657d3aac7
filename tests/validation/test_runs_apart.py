"""Benchmark runs with prefill and decode apart: which rows are simulated, and as what."""

from __future__ import annotations

from typing import Any

import pytest

import hermes_flow as hf
from benchmarks import silicon_apart
from benchmarks.error_bars import kinds_of
from benchmarks.left_out_rows import read
from benchmarks.silicon_apart_layouts import Side
from benchmarks.silicon_apart_settings import decode_settings, prefill_settings
from benchmarks.silicon_engines import with_flashinfer
from hermes_flow.metrics.error_bars.table import error_table

ROW: dict[str, Any] = {
    "mode": "disagg",
    "backend": "vllm",
    "system": "h100_sxm",
    "precision": "fp8",
    "isl": 500,
    "osl": 50,
    "model_path": "meta-llama/Llama-3.1-8B-Instruct",
    "silicon_data_source": "silicon_concurrency=6; x",
    "silicon_ttft_ms": 30.0,
    "silicon_tpot_ms": 6.0,
    **{f"{pool}_{name}": 1 for pool in ("prefill", "decode") for name in ("tp_size", "moe_ep_size")},
    "prefill_num_workers": 1,
    "decode_num_workers": 2,
    "prefill_attention_dp_size": 1,
    "decode_attention_dp_size": 1,
}
LATER = "silicon_concurrency=6; measured=2026-03-20T15:52:16Z"
UNSTATED = {
    **ROW,
    "backend": "trtllm",
    "system": "b200_sxm",
    "precision": "fp4",
    "isl": 1024,
    "osl": 1024,
    "model_path": "deepseek-ai/DeepSeek-R1",
    "silicon_data_source": "silicon_concurrency=180; measured=2026-01-29T15:52:16Z",
    "silicon_tpot_ms": 11.0,
    "prefill_num_workers": None,
    "decode_num_workers": None,
}


def test_a_row_is_simulated_with_its_clients_and_users() -> None:
    pools: Any = silicon_apart.config(ROW).cluster.pools
    assert (pools["prefill"].count, pools["decode"].count) == (1, 2)
    assert not pools["decode"].expert_parallel  # a dense model
    found = silicon_apart.simulate(ROW)
    assert found.problem is None
    assert found.tpot_ms is not None
    assert 1 < found.tpot_ms < 10


@pytest.mark.parametrize(("backend", "engine"), [("sglang", "sglang"), ("trtllm", "tensorrt_llm")])
def test_a_row_has_the_scheduler_of_its_engine(backend: str, engine: str) -> None:
    row = {**ROW, "backend": backend, "system": "h200_sxm", "isl": 8192}
    pools: Any = silicon_apart.config(row).cluster.pools
    assert {pool.engine.scheduler for name, pool in pools.items() if name != "host"} == {engine}
    assert silicon_apart.simulate(row).problem is None
    if backend == "sglang":
        assert (pools["prefill"].chunked_prefill_size, pools["prefill"].max_num_seqs) == (32768, 16)
    else:
        assert (pools["prefill"].max_num_batched_tokens, pools["prefill"].lookahead) == (16640, 0)


def test_ranks_have_the_scheduler_of_their_engine_and_its_limits_for_each() -> None:
    row = {
        **ROW,
        "backend": "sglang",
        "model_path": "deepseek-ai/DeepSeek-V3",
        "system": "b200_sxm",
        "isl": 8192,
        "osl": 1024,
        **{f"{pool}_attention_dp_size": 8 for pool in ("prefill", "decode")},
    }
    config = silicon_apart.config(row)
    pools: Any = config.cluster.pools
    prefill = pools["prefill"]
    assert (prefill.engine.scheduler, prefill.data_parallel) == ("sglang", 8)
    own: Any = hf.compose(["engine=sglang", "hardware=b200_sxm", "pipeline=llm"]).cluster.pools["llm"]
    assert prefill.hardware.engine == with_flashinfer(own.hardware).engine  # as its recipe asks for
    assert (prefill.chunked_prefill_size, prefill.max_num_seqs) == (16384, 2)
    assert config.cluster.first_token == "prefill"
    assert "follow bootstrap room" in " ".join(str(hf.compile(config)).split())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"system": "b200_sxm"}, (True, True)),
        ({"system": "b200_sxm", "precision": "fp4"}, (False, False)),
        ({"system": "b200_sxm", "silicon_data_source": LATER}, (False, False)),
        ({"system": "h200_sxm"}, (False, False)),
        ({"system": "gb300"}, (True, True)),
        ({"system": "gb300", "decode_attention_dp_size": 8}, (True, False)),
        ({"system": "gb300", "backend": "trtllm"}, (False, False)),
    ],
)
def test_products_in_fp8_are_those_of_the_recipe(
    changes: dict[str, Any], expected: tuple[bool, bool]
) -> None:
    row = {**ROW, "backend": "sglang", "model_path": "deepseek-ai/DeepSeek-V3", "isl": 8192, **changes}
    pools: Any = silicon_apart.config(row).cluster.pools
    slow = []
    for name in ("prefill", "decode"):
        engine, figures = pools[name].hardware.engine, pools[name].hardware.efficiency.gemm["fp8"]
        own = figures if engine.kernels is None else engine.kernels.gemm.get("fp8", figures)
        slow.append(own.compute < 0.2)
    assert tuple(slow) == expected


@pytest.mark.parametrize(
    ("changes", "prefill", "decode"),
    [
        ({"backend": "trtllm", "precision": "fp8", "isl": 8192}, (16384, 2, 0.1), 0.9),
        ({"backend": "trtllm", "precision": "fp8", "isl": 1024}, (8192, 8, 0.1), 0.9),
        ({"backend": "trtllm", "precision": "fp4", "isl": 8192}, (16640, 2, 0.6), 0.9),
        ({"backend": "sglang", "precision": "fp8", "isl": 8192}, (32768, 128, 0.95), 0.85),
        ({"backend": "sglang", "precision": "fp4", "isl": 1024}, (8192, 512, 0.95), 0.95),
    ],
)
def test_gb300_has_the_limits_of_its_own_recipes(
    changes: dict[str, Any], prefill: tuple[int, int, float], decode: float
) -> None:
    row = {**ROW, "system": "gb300", "osl": 1024, "model_path": "deepseek-ai/DeepSeek-R1", **changes}
    first = prefill_settings(row, Side(1, 4, 1, False))
    assert (first.tokens, first.seats, first.memory) == prefill
    assert decode_settings(row, Side(1, 4, 1, False), 6).memory == decode


@pytest.mark.parametrize(("isl", "held"), [(1024, 8192), (8192, 32768)])
def test_clients_that_prefill_without_ranks_hold_as_many_tokens_as_their_recipe_says(
    isl: int, held: int
) -> None:
    for system in ("gb200", "gb300"):
        row = {
            **ROW,
            "backend": "sglang",
            "model_path": "deepseek-ai/DeepSeek-R1",
            "precision": "fp4",
            "system": system,
            "isl": isl,
            "osl": 1024,
            "prefill_tp_size": 4,
            "decode_tp_size": 4,
        }
        pools: Any = silicon_apart.config(row).cluster.pools
        assert (pools["prefill"].kv_blocks, pools["decode"].kv_blocks) == (held, None)
        assert pools["decode"].scheduler_recv_interval == 10
        ranks = {**row, "prefill_tp_size": 1, "prefill_attention_dp_size": 4, "prefill_moe_ep_size": 4}
        assert silicon_apart.config(ranks).cluster.pools["prefill"].kv_blocks is None  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("isl", "clients", "devices", "seats", "prompts"),
    [(1024, 5, 4, 8, 16), (8192, 5, 4, 16, 2), (1024, 4, 8, 128, 16)],
)
def test_kimi_on_gb200_has_the_seats_of_its_recipe(
    isl: int, clients: int, devices: int, seats: int, prompts: int
) -> None:
    row = {
        **ROW,
        "backend": "trtllm",
        "system": "gb200",
        "precision": "fp4",
        "model_path": "moonshotai/Kimi-K2.5",
        "isl": isl,
        "osl": 1024,
        "silicon_data_source": "silicon_concurrency=105; x",
    }
    assert decode_settings(row, Side(clients, devices, 1, True), 105).seats == seats
    first = prefill_settings(row, Side(1, 1, 4, True))
    assert (first.tokens, first.seats, first.memory) == (16384, prompts, 0.4)


def test_four_devices_of_sglang_on_gb200_whose_experts_are_cut_have_no_ranks() -> None:
    stated = {
        **ROW,
        "backend": "sglang",
        "system": "gb200",
        "prefill_tp_size": 1,
        "decode_tp_size": 1,
        **{f"{pool}_attention_dp_size": 4 for pool in ("prefill", "decode")},
        **{f"{pool}_moe_ep_size": 1 for pool in ("prefill", "decode")},
    }
    cut = silicon_apart.layout(stated)
    assert cut.prefill == Side(ROW["prefill_num_workers"], 4, 1, False)
    assert cut.decode == Side(ROW["decode_num_workers"], 4, 1, False)
    spread = silicon_apart.layout({**stated, "decode_moe_ep_size": 4})
    assert spread.decode == Side(ROW["decode_num_workers"], 1, 4, True)
    wide = silicon_apart.layout({**stated, "decode_attention_dp_size": 32})
    assert wide.decode == Side(ROW["decode_num_workers"], 1, 32, True)
    assert silicon_apart.layout({**stated, "system": "h200_sxm"}).decode.ranks == 4


def test_ranks_on_gb300_share_the_limits_of_a_client_with_sglang() -> None:
    row = {**ROW, "backend": "sglang", "system": "gb300", "isl": 8192, "osl": 1024}
    told = prefill_settings(row, Side(5, 1, 8, True)), decode_settings(row, Side(1, 1, 32, True), 128)
    assert [(each.tokens, each.seats) for each in told] == [(16384, 3750), (8192, 1406)]


def test_requests_wait_where_a_recipe_has_fewer_seats_than_users() -> None:
    row = {
        **ROW,
        "backend": "trtllm",
        "isl": 1024,
        "osl": 1024,
        "decode_num_workers": 3,
        "silicon_data_source": "silicon_concurrency=6; x",
    }
    found, seated = silicon_apart.simulate(row), silicon_apart.simulate({**row, "isl": 1000})
    assert found.ttft_ms is not None
    assert found.tpot_ms is not None
    assert seated.ttft_ms is not None
    # Three seats for six users: a request waits about as long as one answers
    assert found.ttft_ms == pytest.approx(0.9 * 1024 * found.tpot_ms, rel=0.2)
    assert seated.ttft_ms < 0.1 * found.ttft_ms


@pytest.mark.parametrize(
    "changes",
    [
        {"mode": "agg"},
        {"decode_num_workers": None},
        {"precision": "int8"},
        {"silicon_data_source": "no users"},
        {"silicon_data_source": "silicon_concurrency=3584"},
        {"system": "tpu_v7"},
    ],
)
def test_rows_that_do_not_say_enough_are_left_out(changes: dict[str, Any]) -> None:
    assert silicon_apart.covered([ROW, dict(ROW), {**ROW, **changes, "silicon_ttft_ms": 1.0}]) == [ROW]


def test_a_layout_that_a_row_does_not_state_is_that_of_the_configuration_without_drafting() -> None:
    drafted = {**UNSTATED, "silicon_tpot_ms": 7.6}
    kept, left_out = silicon_apart.sorted_out([drafted, UNSTATED])
    assert kept == [UNSTATED]
    assert left_out == {"layout stated, but not whether tokens are drafted": 1}
    assert silicon_apart.layout(UNSTATED).decode == Side(5, 8, 1, True)
    assert silicon_apart.covered([UNSTATED]) == []  # one time alone may be that with drafting
    another_day = {**UNSTATED, "silicon_data_source": "silicon_concurrency=450; x"}  # nobody drafts for 450
    assert silicon_apart.layout(another_day).decode.clients == 6
    assert silicon_apart.covered([another_day]) == [another_day]


def test_every_row_is_compared_or_has_a_reason() -> None:
    rows = [ROW, dict(ROW), UNSTATED, {**ROW, "system": "tpu_v7"}]
    assert sum(silicon_apart.reasons(rows).values()) == len(rows)


def test_runs_apart_and_of_other_makers_are_kinds_of_their_own() -> None:
    kinds, table = kinds_of(read()), error_table()
    for place, kind, fewest in (("apart", "apart elsewhere", 20), ("maker", "maker", 5)):
        rows = kinds[kind, "computed"].rows
        assert len(rows) >= fewest
        bar = table.groups[f"{place}/computed"]["tpot"]["all"]
        held = [bar.low <= row.errors["tpot"] <= bar.high for row in rows]
        assert sum(held) >= 0.78 * len(held)
    assert list(table.makers) == ["nvidia"]
    assert all(
        row.hardware != "mi300x" for (name, _), kind in kinds.items() if name != "maker" for row in kind.rows
    )
