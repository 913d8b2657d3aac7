"""A recorded run of three steps, by hand: its folder is read, repeated, and compared step by step."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from benchmarks.reality.commands import command_of
from benchmarks.reality.page import Decisions, Row, decisions
from benchmarks.reality.page_text import page
from benchmarks.reality.recorded import read_run
from benchmarks.reality.times import Means

STEPS = {
    # A prompt of 4; then its first decode beside a prompt of 6; then both decode and end.
    "start_us": [0, 1000, 3000],
    "duration_us": [1000, 2000, 500],
    "add_us": [0, 0, 0],
    "prefill_tokens": [4, 6, 0],
    "decodes": [0, 1, 2],
    "decode_context": [0, 4, 11],
    "preempted": [0, 0, 0],
}
REQUESTS = {
    "arrival_us": [0, 100],
    "input_tokens": [4, 6],
    "output_tokens": [3, 2],
    "ttft_us": [1000, 2900],
    "e2e_us": [3500, 3400],
    "cached_tokens": [0, 0],
}


def written(folder: Path, **changed: list[int]) -> Path:
    """Write a run ``by_hand``, with some columns changed, as record.py does."""
    steps = STEPS | {name: values for name, values in changed.items() if name in STEPS}
    requests = REQUESTS | {name: values for name, values in changed.items() if name in REQUESTS}
    none = {key: [None, None] for key in ("session", "turn", "family", "shared_tokens")}
    pl.DataFrame({"engine": ["llm"] * 3} | steps).write_parquet(folder / "by_hand.steps.parquet")
    pl.DataFrame(requests | none).write_csv(folder / "by_hand.requests.csv")
    limits = {"kv_blocks_usable": 818, "block_size": 32, "max_num_seqs": 256, "max_num_batched_tokens": 4096}
    engine = {"model": "toy", "flags": {}, "limits": limits | {"prefix_cache": False}}
    about = {"load": {}, "engines": {"llm": engine}, "cores": {"A": {"players": ["llm"]}}}
    (folder / "runs.json").write_text(json.dumps({"by_hand": about}))
    return folder


def test_a_run_that_follows_the_rules_is_exact(tmp_path: Path) -> None:
    found = decisions(read_run(written(tmp_path), "by_hand"), tmp_path)
    assert found.exact
    assert (found.steps, found.different) == (3, 0)
    assert found.apart_us == pytest.approx(0, abs=1)


@pytest.mark.parametrize(
    ("column", "values", "different"),
    [("decode_context", [0, 4, 12], 1), ("cached_tokens", [0, 2], 0), ("e2e_us", [3500, 3450], 0)],
)
def test_a_run_that_does_not_is_not(tmp_path: Path, column: str, values: list[int], different: int) -> None:
    found = decisions(read_run(written(tmp_path, **{column: values}), "by_hand"), tmp_path)
    assert not found.exact
    assert found.different == different


def test_a_run_is_repeated_by_one_command(tmp_path: Path) -> None:
    words = command_of(written(tmp_path), "by_hand", tmp_path)
    assert words[0] == "hermes-flow"
    assert {"pipeline=llm", "cost=replay", "cluster.pools.llm.kv_blocks=818"} <= set(words)
    assert f"workload.path={tmp_path / 'by_hand.trace.parquet'}" in words
    assert pl.read_parquet(tmp_path / "by_hand.trace.parquet")["input_tokens"].to_list() == [4, 6]


def test_error_bars_of_predictions_are_the_errors_of_the_other_loads(tmp_path: Path) -> None:
    """Without the fifth load the 80th percentile is 3.4 %; of the others, medians are 10.4 %, and they lie within."""
    run = read_run(written(tmp_path), "by_hand")
    exact = Decisions(steps=3, different=0, preemptions=0, cached_equal=True, apart_us=0.0)
    rows = []
    for load, error in enumerate((0.01, -0.02, 0.03, -0.04, 0.20)):
        errors = dict.fromkeys(("e2e", "ttft", "tpot"), error)
        rows.append(Row(replace(run, name=f"load{load}"), 0.5, Means(9, 3, 1), exact, errors, errors, errors))
    text = page(rows, "Runs by hand.")
    assert "| core less than 0.8 busy | 10.4, 10.4, 10.4 % | 4, 4, 4 of 5 |" in text
    assert "**5 of 5 runs are exactly as recorded.**" in text
    assert "3 by their own steps and 3 by their own speed have all three means within 3 %" in text
