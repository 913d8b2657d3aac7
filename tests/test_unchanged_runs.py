"""Saved runs give the tables that they gave, in every process and on any number of cores."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

import hermes_flow as hf
from benchmarks import unchanged
from benchmarks.fingerprints import difference, fingerprints
from benchmarks.processes import run_module

# One run for each part that is most easily disturbed; python -m benchmarks.unchanged compares all of them.
FEW = (
    "01_chat_replicas",
    "05_chunked_priority_native_trace",
    "10_agent_prefix_affinity",
    "14_disaggregated_layerwise_groups",
    "23_guarded_streaming_stops",
    "29_rag_kv_reuse_hybrid",
    "36_pipeline_parallel",
)


@pytest.mark.parametrize("name", FEW)
def test_a_saved_run_gives_the_tables_that_were_saved(name: str) -> None:
    assert unchanged.differences(unchanged.expected()[name], unchanged.tables(name)) == []


def test_every_saved_run_has_fingerprints_and_every_fingerprint_a_run() -> None:
    assert sorted(unchanged.expected()) == unchanged.names()
    assert len(unchanged.names()) >= 40


@pytest.mark.parametrize("threads", ["1", "3"])
def test_neither_hash_seed_nor_number_of_threads_changes_a_table(
    threads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", threads)
    monkeypatch.setenv("POLARS_MAX_THREADS", threads)
    ended = run_module("benchmarks.unchanged", "--only", "21", "24", "33")
    assert ended.output.startswith("3 runs, 0 differ")


@pytest.fixture(scope="module")
def result() -> hf.Result:
    return hf.simulate(hf.compile(hf.compose(["workload=synthetic", "workload.requests=20"])))


def test_the_last_bit_of_one_float_is_a_difference(result: hf.Result) -> None:
    before = fingerprints(result, steps=False)
    changed = copy.copy(result)
    times = result.stages["finish_s"].to_list()
    times[7] = math.nextafter(times[7], math.inf)
    changed.stages = result.stages.with_columns(finish_s=pl.Series(times))
    now = fingerprints(changed, steps=False)
    assert [name for name in before if difference(before[name], now[name])] == ["stages"]
    assert difference(before["stages"], now["stages"]) == "changed: finish_s"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda frame: frame.rename({"ttft_s": "first_s"}), "missing: ttft_s; new: first_s"),
        (lambda frame: frame.with_columns(pl.col("session").cast(pl.Int32)), "changed: session"),
        (lambda frame: frame.with_columns(tpot_s=pl.lit(None, pl.Float64)), "changed: tpot_s"),
        (lambda frame: frame.select(reversed(frame.columns)), "the columns have another order"),
    ],
)
def test_names_types_nulls_and_order_of_columns_count(
    change: Callable[[pl.DataFrame], pl.DataFrame], words: str, result: hf.Result
) -> None:
    before = fingerprints(result, steps=False)
    changed = copy.copy(result)
    changed.requests = change(result.requests)
    assert difference(before["requests"], fingerprints(changed, steps=False)["requests"]) == words


def test_another_number_of_rows_is_named(result: hf.Result) -> None:
    before = fingerprints(result, steps=False)["requests"]
    changed = copy.copy(result)
    changed.requests = result.requests.head(19)
    words = difference(before, fingerprints(changed, steps=False)["requests"])
    assert words is not None
    assert words.startswith("19 rows instead of 20; changed: request, pipeline")


def test_a_missing_and_a_new_table_are_differences(result: hf.Result) -> None:
    links = fingerprints(result, steps=True)["links"]
    assert difference(links, None) == "is missing"
    assert difference(None, links) == "is new"


def test_the_engine_speed_is_not_compared(result: hf.Result) -> None:
    changed = copy.copy(result)
    changed.summary = {**result.summary, "engine": {"wall_s": 1e9}}
    assert fingerprints(changed, steps=False) == fingerprints(result, steps=False)
    assert "engine" in result.summary


def test_a_saved_configuration_comes_back_equal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unchanged, "RUNS", tmp_path)
    overrides = ["pipeline=rag", "cluster=hybrid", "workload.arrivals={process: gamma, cv: 2}"]
    unchanged.save("mine", overrides)
    assert unchanged.load(tmp_path / "mine.yaml") == hf.compose(overrides)
