"""Benchmark runs of gpt-oss-120b on vLLM, whose experts have measured kernels; nothing is fitted to the runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hermes_flow as hf
from benchmarks.silicon import read, same_run

pytestmark = [pytest.mark.shared_data, pytest.mark.study]

MOST_USERS = 128
# On B200 the kernels of the scripts take activations in mxfp8
ON_GPU: dict[str, tuple[str, ...]] = {
    "h100_sxm": (),
    "h200_sxm": (),
    "b200_sxm": ("model.precision.activations=fp8",),
}


def runs(rows: list[dict[str, Any]], gpu: str) -> list[dict[str, Any]]:
    """The runs on a GPU, each once, with one replica of attention and not too many users."""
    found = {}
    for row in rows:
        own = (row["model_path"], row["mode"], row["backend"], row["system"])
        if own != ("openai/gpt-oss-120b", "agg", "vllm", gpu) or (row["attention_dp_size"] or 1) > 1:
            continue
        if row["batch_size"] <= MOST_USERS:
            found[same_run(row)] = row
    return list(found.values())


def errors(row: dict[str, Any], *overrides: str) -> tuple[float, float]:
    """The relative errors of TPOT and TTFT."""
    users = row["batch_size"]
    lengths = {
        name: f"{{distribution: uniform, min: {int(0.8 * row[name])}, max: {row[name]}}}"
        for name in ("isl", "osl")
    }
    config = hf.compose(
        [
            *("pipeline=llm", "workload=closed_loop", "slo=none", "model=gpt_oss_120b"),
            f"hardware={row['system']}",
            f"cluster.pools.llm.tensor_parallel={row['tp_size']}",
            *("cluster.pools.llm.max_num_seqs=512", "cluster.pools.llm.prefix_cache=false"),
            f"workload.arrivals.concurrency={users}",
            f"workload.requests={5 * users}",
            f"workload.input_tokens={lengths['isl']}",
            f"workload.output_tokens={lengths['osl']}",
            *overrides,
        ]
    )
    summary = hf.simulate(hf.compile(config)).summary
    return tuple(  # type: ignore[return-value]
        1e3 * summary[f"{metric}_s"]["mean"] / row[f"silicon_{metric}_ms"] - 1.0
        for metric in ("tpot", "ttft")
    )


@pytest.mark.parametrize(
    ("gpu", "count", "tpot"), [("h100_sxm", 24, 0.12), ("h200_sxm", 37, 0.09), ("b200_sxm", 40, 0.18)]
)
def test_times_per_token_are_met_on_average(shared_data: Path, gpu: str, count: int, tpot: float) -> None:
    found = np.abs([errors(row, *ON_GPU[gpu]) for row in runs(read(shared_data), gpu)])
    assert len(found) == count
    assert found[:, 0].mean() < tpot
