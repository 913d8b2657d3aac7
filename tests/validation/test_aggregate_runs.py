"""Twelve more vLLM 0.15 serving runs on H100, of which only the workload's figures and statistics were published.

Arrivals are drawn: so many in each stage, uniform. The prompts' lengths are those that were asked for, with the few
per cent by which Llama 2's tokenizer counts more, as the runs show that are known request by request.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from validation.serving import (
    DISTINCT_PROMPTS,
    METRICS,
    errors,
    mean_sizes,
    on_h100,
    prompts_in_turn,
    replay,
    simulated,
    table,
)

pytestmark = [pytest.mark.shared_data, pytest.mark.study]

SEEDS = 4
COUNTED_MORE = {"meta-llama/Llama-2-7b-hf": 1.045}


def drawn_workload(run: dict[str, Any], seed: int) -> tuple[list[int], list[int]]:
    """Arrivals in µs, and the lengths of the prompts that are sent in turn."""
    draw = np.random.default_rng((run["id"], seed))
    arrivals, start = [], 0.0
    for stage in run["stages"].split(";"):
        rate, seconds = (float(part) for part in stage.removesuffix("s").split("rps x "))
        arrivals += np.sort(draw.uniform(start, start + seconds, round(rate * seconds))).tolist()
        start += seconds
    asked = run["system_prompt_len"] + run["question_len"]
    mean = round(asked * COUNTED_MORE.get(run["model"], 1.0))
    lengths = np.clip(np.rint(draw.normal(mean, 6, DISTINCT_PROMPTS)), 1, None).astype(int)
    turns = np.arange(len(arrivals)) % DISTINCT_PROMPTS
    return [round(at * 1e6) for at in arrivals], lengths[turns].tolist()


def in_ms(run: dict[str, Any]) -> dict[str, float]:
    e2e, ttft = run["real_all_e2e_mean_ms"], run["real_all_ttft_mean_ms"]
    tpot = (e2e - ttft) / (run["output_len"] - 1)
    return {"e2e": e2e, "tpot": tpot, "ttft": ttft, "ttft_p99": run["real_all_ttft_p99_ms"]}


def test_the_twelve_runs_are_met(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import polars as pl

    rows = {}
    for run in pl.read_csv(shared_data / "vllm_h100_aggregate" / "runs.csv").iter_rows(named=True):
        found = []
        for seed in range(SEEDS):
            arrivals, lengths = drawn_workload(run, seed)
            result = replay(
                tmp_path / f"{run['id']}_{seed}.parquet",
                arrivals,
                lengths,
                [run["output_len"]] * len(arrivals),
                prompts_in_turn(lengths, run["system_prompt_len"], run["n_prompts"]),
                on_h100(run["model"], *(run[key] for key in ("tp", "max_num_seqs", "mbt", "kv_blocks"))),
            )
            found.append(simulated(result))
        mean = {name: sum(each[name] for each in found) / SEEDS for name in METRICS}
        rows[f"{run['id']} {run['model'].split('/')[1][:20]} TP{run['tp']}"] = errors(mean, in_ms(run))
    with capsys.disabled():
        print(table(rows))
    for name, row in rows.items():
        worst = 0.065 if "Scout" in name else 0.052
        assert abs(row["e2e"]) < worst, name
        assert abs(row["tpot"]) < worst, name
        assert abs(row["ttft"]) < 0.11, name
    sizes = mean_sizes(rows)
    assert sizes["e2e"] < 0.022
    assert sizes["tpot"] < 0.022
    assert sizes["ttft"] < 0.042
    assert sizes["ttft_p99"] < 0.15
