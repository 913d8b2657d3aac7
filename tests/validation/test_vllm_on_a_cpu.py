"""A real vLLM on a CPU, alone and in pipelines, replayed with its own step times: all is as recorded.

The runs are in the shared folder of measured data; without it these tests are skipped.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

import hermes_flow as hf
from benchmarks.reality.recorded import (
    CONF,
    Recorded,
    overrides_of,
    read_run,
    replay_of,
    trace_of,
    workload_of,
)

pytestmark = pytest.mark.shared_data

# One run of each kind; the others are studies.
KINDS = ("a_kv80", "a_budget256", "a_closed8", "p_mid", "sessions", "rag_low", "rag_shared_low", "agent_low")
MORE_KINDS = ("branches", "cascade_low")
OTHERS = (
    *("a_low", "a_mid_rep1", "a_mid_rep2", "a_mid_rep3", "a_mid_rep4", "a_high", "a_high_rep2"),
    *("a_budget256_rep2", "a_kv80_rep2", "a_kv80_rep3", "a_closed8_rep2", "b_low", "b_high", "b_high_rep2"),
    *("p_low", "p_mid_off", "p_mid_off_rep2", "rag_mid", "rag_mid_rep2", "rag_mid_rep3", "rag_flat_mid"),
    "rag_shared_high",
)
# Instants are whole microseconds; a chain of several of them is rounded several times.
ROUNDED_US = 5.0


@pytest.fixture
def folder(shared_data: Path) -> Path:
    found = shared_data / "vllm_cpu"
    if not found.is_dir():
        pytest.skip("the shared data has no vllm_cpu")
    return found


@pytest.mark.parametrize(
    "name", [*KINDS, *MORE_KINDS, *(pytest.param(name, marks=pytest.mark.study) for name in OTHERS)]
)
def test_every_decision_of_a_real_vllm_is_repeated(name: str, folder: Path, tmp_path: Path) -> None:
    run = read_run(folder, name)
    result = replayed(run, tmp_path / "trace.parquet")
    steps_agree(run, result)
    requests = result.requests
    assert int(requests["preemptions"].sum()) == int(run.steps["preempted"].sum())
    found, recorded = requests, run.requests
    if "delay_us" in trace_of(run).columns:  # the simulator numbers requests session by session
        found, recorded = found.sort("session", "arrival_s"), recorded.sort("session", "turn")
    for metric in ("ttft", "e2e"):
        assert (found[f"{metric}_s"] * 1e6 - recorded[f"{metric}_us"]).abs().max() <= ROUNDED_US, metric
    if run.stages is None:
        assert found["cached_tokens"].to_list() == recorded["cached_tokens"].to_list()
    else:
        stages_agree(run.stages, result)


def replayed(run: Recorded, path: Path) -> hf.Result:
    trace_of(run).write_parquet(path)
    overrides = [*overrides_of(run), *workload_of(run, path), *replay_of(run), "output.steps=true"]
    return hf.simulate(hf.compile(hf.compose(overrides, config_dir=CONF)))


def steps_agree(run: Recorded, result: hf.Result) -> None:
    """The steps of every engine have the same prompts and decodes, over the same context, in the same order."""
    for engine in run.about["engines"]:
        recorded = run.steps.filter(pl.col("engine") == engine)
        found = result.steps.filter(pl.col("client").str.starts_with(f"{engine}/"))
        for column in ("decodes", "decode_context", "prefill_tokens"):
            assert found[column].to_list() == recorded[column].to_list(), (engine, column)


def stages_agree(recorded: pl.DataFrame, result: hf.Result) -> None:
    """Each stage of a request is ready and over when it was, and each request has found the same tokens."""
    ends = pl.col("kind").is_in(["decode", "embed", "vector_search", "guard", "tool"])
    found = result.stages.filter(ends).sort("request", "ready_s", "finish_s")
    theirs = recorded.sort("request", "ready_us", "finish_us")
    assert len(found) == len(theirs)
    late = (found["finish_s"] * 1e6 - theirs["finish_us"]).abs()
    assert late.max() <= ROUNDED_US  # type: ignore[operator]
    cached = theirs.group_by("request", maintain_order=True).agg(pl.col("cached_tokens").sum())
    by_request = result.requests["cached_tokens"].to_list()
    assert [by_request[number] for number in cached["request"]] == cached["cached_tokens"].to_list()
