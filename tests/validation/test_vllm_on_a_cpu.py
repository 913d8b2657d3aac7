"""A real vLLM on a CPU, replayed with its own step times: every decision and every instant is as recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import hermes_flow as hf

pytestmark = pytest.mark.shared_data

RUNS = (
    *(
        "a_low",
        "a_mid_rep1",
        "a_high",
        "a_budget256",
        "a_kv80",
        "a_kv80_rep2",
        "a_kv80_rep3",
        "b_low",
        "b_high",
    ),
    *("p_low", "p_mid", "p_mid_off", "sessions"),
)


def hashes(requests: pl.DataFrame, block: int) -> list[pl.Series]:
    """Return the names of the blocks of prompts and answers, as the README of the data describes them."""
    prompts, answers = [], []
    numbers: dict[Any, int] = {}
    for row in requests.iter_rows(named=True):
        name = row["family"] if row["session"] is None else row["session"]
        own = 1000 * numbers.setdefault(name, len(numbers))
        alone = 10_000_000 + 1000 * len(prompts)
        end = row["input_tokens"] + row["output_tokens"]
        if row["session"] is None:
            known = row["shared_tokens"] // block
            count = -(-row["input_tokens"] // block)
            prompts.append([own + k if k < known else alone + k for k in range(count)])
            answers.append([])
        else:
            prompts.append([own + k for k in range(-(-row["input_tokens"] // block))])
            answers.append([own + k for k in range(row["input_tokens"] // block, end // block)])
    kind = pl.List(pl.Int64)
    return [pl.Series("prefix_hashes", prompts, kind), pl.Series("answer_hashes", answers, kind)]


@pytest.mark.parametrize("run", RUNS)
def test_every_decision_of_a_real_vllm_is_repeated(run: str, shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "vllm_cpu"
    limits = json.loads((folder / "runs.json").read_text(encoding="utf-8"))[run]["engines"]["llm"]["limits"]
    requests = pl.read_csv(folder / f"{run}.requests.csv")
    steps = pl.read_parquet(folder / f"{run}.steps.parquet")
    trace = requests.select("arrival_us", "input_tokens", "output_tokens")
    cached = limits["prefix_cache"]
    if cached:
        trace = trace.with_columns(hashes(requests, limits["block_size"]))
    trace.write_parquet(tmp_path / "trace.parquet")
    pool = {"kv_blocks": limits["kv_blocks_usable"], "lookahead": 0, "prefix_cache": str(cached).lower()}
    pool |= {key: limits[key] for key in ("block_size", "max_num_seqs", "max_num_batched_tokens")}
    result = hf.simulate(
        hf.compile(
            hf.compose(
                [
                    *("pipeline=llm", "slo=none", "output.steps=true", "cost=replay"),
                    *("workload=trace", f"workload.path={tmp_path / 'trace.parquet'}"),
                    *((f"workload.prefix_block_tokens={limits['block_size']}",) if cached else ()),
                    f"cost.path={folder / f'{run}.steps.parquet'}",
                    *(f"cluster.pools.llm.{key}={value}" for key, value in pool.items()),
                ]
            )
        )
    )
    for column in ("decodes", "decode_context", "prefill_tokens"):
        assert result.steps[column].to_list() == steps[column].to_list(), column
    found = result.requests
    assert int(found["preemptions"].sum()) == int(steps["preempted"].sum())
    if cached:
        assert found["cached_tokens"].to_list() == requests["cached_tokens"].to_list()
    for name in ("ttft", "e2e"):
        apart = (found[f"{name}_s"] * 1e6 - requests[f"{name}_us"]).abs()
        assert apart.max() <= 2.5, name  # of figures that are whole microseconds
