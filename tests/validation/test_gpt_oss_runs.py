"""Benchmark runs of gpt-oss-120b and GLM-5, whose kernels are measured one by one; nothing is fitted to the runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.silicon import Found, covered, mape, model_of, read, simulate

pytestmark = [pytest.mark.shared_data, pytest.mark.study]


def found(shared_data: Path, model: str, engine: str, gpu: str) -> list[Found]:
    rows, _ = covered(read(shared_data))
    own = [row for row in rows if (row["backend"], row["system"]) == (engine, gpu)]
    return [simulate(row) for row in own if model_of(row) == model]


@pytest.mark.parametrize(
    ("gpu", "count", "tpot"), [("h100_sxm", 24, 0.13), ("h200_sxm", 35, 0.09), ("b200_sxm", 40, 0.13)]
)
def test_times_per_token_of_gpt_oss_are_met(shared_data: Path, gpu: str, count: int, tpot: float) -> None:
    runs = found(shared_data, "gpt_oss_120b", "vllm", gpu)
    assert len(runs) == count
    assert mape(runs)[1] < tpot


@pytest.mark.parametrize(("gpu", "count", "tpot"), [("h200_sxm", 12, 0.11), ("b200_sxm", 13, 0.05)])
def test_times_per_token_with_sparse_attention_are_met(
    shared_data: Path, gpu: str, count: int, tpot: float
) -> None:
    runs = found(shared_data, "glm_5_fp8", "sglang", gpu)
    assert len(runs) == count
    assert mape(runs)[1] < tpot
