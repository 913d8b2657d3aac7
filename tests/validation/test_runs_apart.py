"""Benchmark runs with prefill and decode apart: which rows are simulated, and as what."""

from __future__ import annotations

from typing import Any

import pytest

import hermes_flow as hf
from benchmarks import silicon_apart
from benchmarks.error_bars import kinds_of
from benchmarks.left_out_rows import read
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


def test_a_row_is_simulated_with_its_clients_and_users() -> None:
    config = hf.compose(silicon_apart.overrides(ROW))
    pools: Any = config.cluster.pools
    assert (pools["prefill"].count, pools["decode"].count) == (1, 2)
    assert not pools["decode"].expert_parallel  # a dense model
    found = silicon_apart.simulate(ROW)
    assert found.problem is None
    assert found.tpot_ms is not None
    assert 1 < found.tpot_ms < 10


@pytest.mark.parametrize(
    "changes",
    [
        {"mode": "agg"},
        {"decode_num_workers": None},
        {"precision": "fp4"},
        {"silicon_data_source": "no users"},
        {"silicon_data_source": "silicon_concurrency=3584"},
        {"system": "gb200"},
    ],
)
def test_rows_that_do_not_say_enough_are_left_out(changes: dict[str, Any]) -> None:
    assert silicon_apart.covered([ROW, dict(ROW), {**ROW, **changes, "silicon_ttft_ms": 1.0}]) == [ROW]


def test_runs_apart_and_of_other_makers_are_kinds_of_their_own() -> None:
    kinds, table = kinds_of(read()), error_table()
    for place, kind, fewest in (("apart", "apart elsewhere", 20), ("maker", "maker", 5)):
        rows = kinds[kind, "computed"].rows
        assert len(rows) >= fewest
        bar = table.groups[f"{place}/computed"]["tpot"]["all"]
        held = [bar.low <= row.errors["tpot"] <= bar.high for row in rows]
        assert sum(held) >= 0.8 * len(held)
    assert list(table.makers) == ["nvidia"]
    assert all(
        row.hardware != "mi300x" for (name, _), kind in kinds.items() if name != "maker" for row in kind.rows
    )
