"""Steps take what they took in a recorded run, in their order; the engine's decisions follow from its rules."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import hermes_flow as hf
from hermes_flow.errors import CompileError, HermesFlowError

LLM = ("pipeline=llm", "workload=synthetic", "slo=none", "cluster.pools.llm.prefix_cache=false")


def simulate(*overrides: str, **pool: Any) -> hf.Result:
    config = hf.compose([*LLM, *overrides])
    llm: Any = replace(config.cluster.pools["llm"], **pool)  # type: ignore[arg-type, type-var]
    pools = config.cluster.pools | {"llm": llm}
    return hf.simulate(hf.compile(replace(config, cluster=replace(config.cluster, pools=pools))))


def table(path: Path, **columns: list[float] | list[str]) -> str:
    pl.DataFrame(columns).write_parquet(path)
    return f"cost.path={path}"


def test_the_steps_of_one_request_take_what_was_recorded(tmp_path: Path) -> None:
    steps = table(
        tmp_path / "steps.parquet", duration_us=[9000.0, 4000.0, 6500.0], add_us=[1000.0, 0.0, 500.0]
    )
    one = ("workload.requests=1", "workload.input_tokens=50", "workload.output_tokens=3")
    result = simulate(*one, "cost=replay", steps, lookahead=0)
    assert result.requests["ttft_s"].to_list() == pytest.approx([0.010], abs=1e-9)
    assert result.requests["e2e_s"].to_list() == pytest.approx([0.010 + 0.004 + 0.007], abs=1e-9)


def test_steps_that_follow_each_other_end_at_their_recorded_ends(tmp_path: Path) -> None:
    """The second step begins 1 µs after the first one ends, by rounding; the third one 70 µs after the second."""
    steps = table(
        tmp_path / "steps.parquet", start_us=[100.0, 1101.0, 2171.0], duration_us=[1000.0, 1000.0, 1000.0]
    )
    one = ("workload.requests=1", "workload.input_tokens=50", "workload.output_tokens=3")
    result = simulate(*one, "cost=replay", steps, lookahead=0)
    assert result.requests["e2e_s"].to_list() == pytest.approx([1000e-6 + 1001e-6 + 1000e-6], abs=1e-9)


@pytest.mark.parametrize(
    "pool",
    [
        {"lookahead": 0},
        {"lookahead": 1, "max_num_batched_tokens": 256},
        {"lookahead": 1, "kv_blocks": 200},
        {"batching": "continuous", "preemption": "swap", "kv_blocks": 200},
        {"count": 2, "prefix_cache": True},
    ],
    ids=["plain", "chunks", "preemptions", "swaps", "two clients"],
)
def test_a_run_that_is_replayed_is_the_same_run(tmp_path: Path, pool: dict[str, Any]) -> None:
    load = (
        "workload.requests=120",
        "workload.rate_per_s=40",
        "output.steps=true",
        "cost=affine",
        "cost.fixed_us=4000",
    )
    recorded = simulate(*load, "cost.per_token_us=30", "cost.per_context_us=0.3", **pool)
    assert recorded.requests["preemptions"].sum() > 0 or "kv_blocks" not in pool
    path = tmp_path / "steps.parquet"
    recorded.steps.write_parquet(path)
    again = simulate(*load[:3], "cost=replay", f"cost.path={path}", **pool)
    for frame in ("requests", "stages", "steps"):
        assert_frame_equal(getattr(again, frame), getattr(recorded, frame), check_exact=False, abs_tol=2e-9)


def test_rows_are_chosen_by_their_values(tmp_path: Path) -> None:
    steps = table(tmp_path / "steps.parquet", time_ms=[5.0, 8.0, 6.0], engine=["a", "b", "a"])
    one = ("workload.requests=1", "workload.input_tokens=50", "workload.output_tokens=2")
    result = simulate(*one, "cost=replay", steps, "+cost.where.engine=a", lookahead=0)
    assert result.requests["e2e_s"].to_list() == pytest.approx([0.011], abs=1e-9)


def test_a_run_that_needs_more_steps_than_were_recorded_is_an_error(tmp_path: Path) -> None:
    steps = table(tmp_path / "steps.parquet", time_ms=[5.0, 8.0])
    with pytest.raises(
        HermesFlowError, match=r"cost=replay: client 0 needs more than the 2 steps recorded of it"
    ):
        simulate("workload.requests=3", "cost=replay", steps)


@pytest.mark.parametrize(
    ("columns", "overrides", "message"),
    [
        ({"step": [1.0]}, (), r"cost\.path: .* has no time of a step; expected the column time_us"),
        ({"time_us": [3.0, -1.0]}, (), r"cost\.path: .* step 2 has no time above 0 \(-1 µs\)"),
        ({"time_us": [3.0], "time_ms": [3.0]}, (), r"has time_ms and time_us; expected one of them"),
        (
            {"time_us": [3.0]},
            ("+cost.where.engine=a",),
            r"cost\.where\.engine: no such column in .*, which has: time_us",
        ),
        (
            {"time_us": [3.0]},
            ("cluster.pools.llm.count=2",),
            r"cluster\.pools\.llm\.count: 2, but cost\.path has the",
        ),
        (
            {"time_us": [3.0]},
            ("cluster.pools.llm.batching=static",),
            r"cluster\.pools\.llm\.batching: static plans whole",
        ),
        (
            {"time_us": [3.0]},
            ("cluster.pools.llm.pipeline_parallel=2",),
            r"cluster\.pools\.llm\.pipeline_parallel: ",
        ),
        (
            {"time_us": [3.0]},
            ("engine=sglang",),
            r"engine: sglang, and cost=replay follows vLLM's scheduler only",
        ),
    ],
)
def test_what_cannot_be_replayed_is_refused(
    tmp_path: Path, columns: dict[str, list[float]], overrides: tuple[str, ...], message: str
) -> None:
    steps = table(tmp_path / "steps.parquet", **columns)
    with pytest.raises(CompileError, match=message):
        hf.compile(hf.compose([*LLM, "workload.requests=3", "cost=replay", steps, *overrides]))


def test_a_pool_may_have_a_cost_model_of_its_own() -> None:
    own = "cluster.pools.embed.cost={kind: affine, fixed_us: 900, per_token_us: 12}"
    load = ("pipeline=rag", "workload=synthetic", "workload.requests=1", "slo=none")
    result = hf.simulate(hf.compile(hf.compose([*load, own])))
    (row,) = result.stages.filter(pl.col("stage") == "embed").to_dicts()
    assert row["service_s"] == pytest.approx((900 + 12 * min(row["tokens"], 512)) * 1e-6, abs=1e-9)
    others = hf.simulate(hf.compile(hf.compose([*load])))
    kept = pl.col("stage").is_in(["prefill", "decode", "search"])
    assert_frame_equal(
        result.stages.filter(kept).select("stage", "service_s", "tokens"),
        others.stages.filter(kept).select("stage", "service_s", "tokens"),
        check_exact=False,
        abs_tol=2e-9,
    )


def test_an_error_of_a_pools_cost_names_the_pools_key() -> None:
    with pytest.raises(CompileError, match=r"cluster\.pools\.llm\.cost\.fixed_us: -3"):
        hf.compile(hf.compose([*LLM, "cluster.pools.llm.cost={kind: affine, fixed_us: -3}"]))


ONE = ("workload.requests=1", "workload.input_tokens=50", "workload.output_tokens=3")


def test_recorded_steps_that_are_left_are_a_warning(tmp_path: Path) -> None:
    enough = simulate(
        *ONE, "cost=replay", table(tmp_path / "a.parquet", time_ms=[5.0, 8.0, 6.0]), lookahead=0
    )
    assert not any("cost=replay" in text for text in enough.summary["warnings"])
    more = simulate(
        *ONE, "cost=replay", table(tmp_path / "b.parquet", time_ms=[5.0, 8.0, 6.0, 7.0]), lookahead=0
    )
    assert more.summary["warnings"] == [
        "cost=replay: 1 of the 4 steps recorded of llm/0 were not taken; the load, the settings of the pool or its "
        "engine differ from those of the recorded run"
    ]
    clients = table(
        tmp_path / "c.parquet",
        time_ms=[5.0, 8.0, 6.0, 7.0, 9.0],
        client=["llm/0", "llm/0", "llm/0", "llm/1", "llm/1"],
    )
    other = simulate(*ONE, "cost=replay", clients, lookahead=0)
    assert "2 of the 2 steps recorded of llm/1 were not taken" in other.summary["warnings"][0]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"start_s": [0.0, 0.2, 0.1], "end_s": [0.1, 0.3, 0.2]},
            r"step 3 begins before step 2 \(start_s\); expected the steps in the order of their time",
        ),
        (
            {"start_us": [9.0, 4.0], "duration_us": [3.0, 3.0], "client": ["llm/0", "llm/0"]},
            r"step 2 begins before step 1 \(start_us\)",
        ),
        ({"time_ms": [5.0], "client": ["llm/x"]}, r"has steps of llm/x; expected some of llm/0"),
        (
            {"time_ms": [5.0], "client": ["llm/999999999"]},
            r"has steps of llm/999999999; expected some of llm/0",
        ),
    ],
)
def test_steps_out_of_order_and_clients_without_a_number_are_refused(
    columns: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(CompileError, match=message):
        simulate(*ONE, "cost=replay", table(tmp_path / "steps.parquet", **columns))


def test_steps_of_two_clients_may_be_mixed(tmp_path: Path) -> None:
    steps = table(
        tmp_path / "steps.parquet",
        start_s=[0.5, 0.0, 0.6, 0.1, 0.7],
        end_s=[0.6, 0.1, 0.7, 0.2, 0.8],
        client=["llm/0", "llm/1", "llm/0", "llm/1", "llm/0"],
    )
    assert simulate(*ONE, "cost=replay", steps).summary["requests"]["completed"] == 1
