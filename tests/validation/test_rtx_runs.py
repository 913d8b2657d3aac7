"""Three real vLLM 0.19 runs of 300 requests on GPUs without Hopper's attention, from tables of their layers.

Tables and runs are LLMServingSim's (MIT). The 4090 is saturated and preempts again and again. One figure is fitted to
the runs: on the host of the RTX PRO 6000s a step takes 1 ms more than its layers.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from validation.serving import errors, own_prompts, replay, simulated, table

pytestmark = pytest.mark.shared_data

POOL = "cluster.pools.llm"
SATURATED = (f"{POOL}.max_num_seqs=256", f"{POOL}.kv_blocks=2588")
HOST_STEP = (f"{POOL}.max_num_seqs=128", "cost.step_us=1000")
RUNS = {
    "rtx4090_llama-3.1-8b_tp1": ("model=llama3_8b", "hardware=rtx4090", *SATURATED),
    "rtxpro6000_llama-3.1-8b_tp1": ("model=llama3_8b", "hardware=rtx_pro_6000", *HOST_STEP),
    "rtxpro6000_qwen3-32b_tp2": (
        "model=qwen3_32b",
        "hardware=rtx_pro_6000",
        f"{POOL}.tensor_parallel=2",
        *HOST_STEP,
    ),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_met_from_its_layer_tables(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    import polars as pl

    measured = pl.read_parquet(shared_data / "vllm_rtx" / f"{name}.parquet").sort("arrival_us")
    lengths = measured["input_tokens"].to_list()
    result = replay(
        tmp_path / "trace.parquet",
        measured["arrival_us"].to_list(),
        lengths,
        measured["output_tokens"].to_list(),
        own_prompts(lengths),
        [
            *("cost=kernels", "cost.ingest_ms=1", f"cost.path={shared_data}/kernels_rtx/{name}"),
            f"{POOL}.max_num_batched_tokens=2048",
            *RUNS[name],
        ],
    )
    first_us = measured["first_token_us"] - measured["arrival_us"]
    last_us = measured["last_token_us"] - measured["arrival_us"]
    real = {
        "e2e": last_us.mean() / 1e3,
        "tpot": ((last_us - first_us) / (measured["output_tokens"] - 1)).mean() / 1e3,
        "ttft": first_us.mean() / 1e3,
        "ttft_p99": first_us.quantile(0.99, "linear") / 1e3,
    }
    row = errors(simulated(result), real)
    with capsys.disabled():
        print(table({name: row}))
    assert (result.requests["preemptions"].sum() > 100) == ("4090" in name)
    assert abs(row["e2e"]) < 0.02
    assert abs(row["tpot"]) < 0.02
    assert abs(row["ttft"]) < 0.035
