"""Kernels of experts that the scripts of benchmark runs choose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import silicon


@pytest.mark.shared_data
@pytest.mark.parametrize(("release", "triton"), [("0.17", True), ("0.19", False)])
def test_minimax_in_fp8_on_b200_had_triton_s_experts_before_vllm_0_19(
    shared_data: Path, release: str, triton: bool
) -> None:
    rows = [
        row
        for row in silicon.covered(silicon.read(shared_data))[0]
        if (row["system"], row["model_path"], row["precision"])
        == ("b200_sxm", "MiniMaxAI/MiniMax-M2.5", "fp8")
        and str(row["backend_version"]).startswith(release)
    ]
    assert rows
    pools: list[Any] = [silicon.config(row).cluster.pools["llm"] for row in rows]
    for pool in pools:
        fp8 = pool.hardware.engine.experts["fp8"]
        assert (fp8.by_rows is None) is triton
        assert fp8.compute == (0.145 if triton else 0.23)
        assert (pool.expert_parallel and pool.memory_utilization == 0.95) or not triton
