"""The figures of the runs of one workload on three layouts belong to the layouts that they stand for."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from benchmarks.measured_runs import LAYOUTS, disaggregated
from hermes_flow.validation.compare import compare
from hermes_flow.validation.description import read_description

pytestmark = pytest.mark.shared_data


def test_the_pair_ends_when_its_generated_tokens_do(shared_data: Path) -> None:
    """Rows of generated tokens per second are of the pair alone; two of the three layouts end a second earlier."""
    folder = shared_data / "vllm_h100_pd"
    tokens = pl.read_parquet(folder / "workload.parquet")["output_tokens"].sum()
    seconds = pl.read_csv(folder / "pdd_generation_throughput.tsv", separator="\t")
    last = seconds.filter(pl.col("throughput") > 0)["time_s"].max()
    ends = {name: tokens / figures[0] for name, (_, figures) in LAYOUTS.items()}
    assert [name for name, end in ends.items() if last - 1 < end <= last] == [
        "Llama-3.1-70B on H100: prefill TP4 + decode TP4"
    ]


def test_the_three_layouts_without_constants_that_are_fitted_to_their_means(
    shared_data: Path, tmp_path: Path
) -> None:
    rows = {}
    for path in disaggregated(shared_data, tmp_path):
        run = read_description(path)
        means = [row for row in compare(run).rows if row.statistic == "mean"]
        rows[run.name] = {row.metric: row.error_percent / 100.0 for row in means}
    pair = rows.pop("Llama-3.1-70B on H100: prefill TP4 + decode TP4")
    assert abs(pair["ttft"]) < 0.03
    assert -0.25 < pair["tpot"] < -0.2  # what its connector takes is not known
    for name, row in rows.items():
        assert abs(row["ttft"]) < 0.1, name
        assert abs(row["tpot"]) < 0.1, name
