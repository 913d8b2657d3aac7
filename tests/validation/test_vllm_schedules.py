"""The whole public path against recorded schedules of the real vLLM V1 scheduler: equal to the microsecond.

With prefix cache (hits, evictions and preemption together) and without. The schedules' own steps are compared
with the naive oracle in tests/oracles.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tries import some_of

import hermes_flow as hf
from hermes_flow.config.schema import TraceWorkload
from hermes_flow.pools.llm.schema import LLMPool

pytestmark = pytest.mark.shared_data

NS_PER_US = 1000
US_PER_S = 1_000_000

Case = dict[str, Any]


@pytest.fixture(scope="module")
def cases(shared_data: Path) -> list[Case]:
    with gzip.open(shared_data / "vllm_schedules" / "cases.json.gz", "rt") as file:
        cases: list[Case] = json.load(file)
        return cases


def write_trace(case: Case, path: Path) -> None:
    """Write the case's requests as a native trace, CSV or Parquet by the name of ``path``."""
    import polars as pl

    rows = case["requests"]
    table = pl.DataFrame(
        {
            "arrival_us": [row["arrival_us"] for row in rows],
            "input_tokens": [row["prompt"] for row in rows],
            "output_tokens": [row["output"] for row in rows],
        }
    )
    if case["prefix_cache"]:
        size = case["block_size"]
        ids = [[row["family"] * 10_000 + block for block in range(row["shared"] // size)] for row in rows]
        lists: list[Any] = ids if path.suffix == ".parquet" else [str(row) for row in ids]
        table = table.with_columns(prefix_hashes=pl.Series(lists, dtype=None))
    if path.suffix == ".parquet":
        table.write_parquet(path)
    else:
        table.write_csv(path)


def overrides(case: Case, path: Path) -> list[str]:
    """Return what a user would write for this case on the command line."""
    engine = (
        "max_num_seqs",
        "max_num_batched_tokens",
        "kv_blocks",
        "block_size",
        "lookahead",
        "prefix_cache",
    )
    return [
        "pipeline=llm",
        "slo=none",
        "workload=trace",
        f"workload.path={path}",
        "cost=affine",
        *(f"cost.{name}_us={case['cost'][name]}" for name in ("fixed", "per_token", "per_context")),
        *(f"cluster.pools.llm.{name}={case[name]}" for name in engine),
    ]


@cache
def template() -> hf.Config:
    return hf.compose(
        ["pipeline=llm", "slo=none", "workload=trace", "workload.path=-", "cost=affine", "cost.fixed_us=1"]
    )


def configure(case: Case, path: Path) -> hf.Config:
    """Return the config of ``overrides(case, path)`` without composing it anew."""
    config = template()
    pool, workload = config.cluster.pools["llm"], config.workload
    assert isinstance(pool, LLMPool)
    assert isinstance(workload, TraceWorkload)
    pool = replace(
        pool,
        max_num_seqs=case["max_num_seqs"],
        max_num_batched_tokens=case["max_num_batched_tokens"],
        kv_blocks=case["kv_blocks"],
        block_size=case["block_size"],
        lookahead=case["lookahead"],
        prefix_cache=case["prefix_cache"],
    )
    return replace(
        config,
        cluster=replace(config.cluster, pools=config.cluster.pools | {"llm": pool}),
        workload=replace(workload, path=str(path)),
        cost={"kind": "affine"} | {f"{name}_us": float(figure) for name, figure in case["cost"].items()},
    )


def check_schedule(result: hf.Result, case: Case) -> None:
    """Compare every token that a user could time, and what the recording and the tables say about the run."""
    requests = result.requests
    assert requests["status"].to_list() == ["completed"] * len(case["requests"])
    for column, recorded_us in (("first_token_s", "first_token_us"), ("finish_s", "finish_us")):
        assert [round(seconds * US_PER_S) for seconds in requests[column]] == case[recorded_us]
    (op,) = result.recording.ops
    assert op.first_ns is not None
    assert op.preemptions is not None
    np.testing.assert_array_equal(op.first_ns, np.array(case["first_token_us"]) * NS_PER_US)
    np.testing.assert_array_equal(op.finish_ns, np.array(case["finish_us"]) * NS_PER_US)

    assert requests["cached_tokens"].to_list() == case["cached_tokens"]

    steps = case["steps"]
    preempted = [name for step in steps for name in step[3]]
    # The recording lists whom a step preempted; once, a plan that came out empty preempts one more.
    assert int(op.preemptions.sum()) - len(preempted) in (0, 1)
    assert result.summary["engine"]["steps"] == len(steps)
    (client,) = (client for client in result.recording.clients if client.segments is not None)
    assert client.busy_ns == sum(step[1] for step in steps) * NS_PER_US
    tokens = result.clients.filter(result.clients["pool"] == "llm")["tokens"].item()
    assert tokens == sum(sum(step[2].values()) for step in steps)


def test_every_recorded_schedule_is_met_to_the_microsecond(cases: list[Case], tmp_path: Path) -> None:
    assert len(cases) >= 240
    assert sum(any(case["cached_tokens"]) for case in cases) > 40
    assert {case["lookahead"] for case in cases} == {0, 1}
    assert sum(any(step[3] for step in case["steps"]) for case in cases) > 20  # many preempt
    for number, case in some_of(list(enumerate(cases)), one_in=3):
        path = tmp_path / f"case{number}.{'csv' if number % 2 else 'parquet'}"
        write_trace(case, path)
        check_schedule(hf.simulate(hf.compile(configure(case, path))), case)


@pytest.mark.parametrize(("number", "suffix"), [(0, "csv"), (1, "parquet"), (2, "csv"), (3, "parquet")])
def test_overrides_as_on_the_command_line_meet_a_recorded_schedule(
    cases: list[Case], tmp_path: Path, number: int, suffix: str
) -> None:
    lookahead = number % 2
    preempting = [
        case
        for case in cases
        if case["lookahead"] == lookahead
        and case["prefix_cache"] == (number >= 2)
        and any(step[3] for step in case["steps"])
    ]
    case = preempting[number // 2]
    path = tmp_path / f"trace.{suffix}"
    write_trace(case, path)
    config = hf.compose(overrides(case, path))
    assert config == configure(case, path)
    check_schedule(hf.simulate(hf.compile(config)), case)


def test_a_schedule_written_out_of_order_is_the_same_schedule(cases: list[Case], tmp_path: Path) -> None:
    import polars as pl

    distinct = [
        case
        for case in cases
        if len({row["arrival_us"] for row in case["requests"]}) == len(case["requests"]) > 10
    ]
    case = distinct[0]
    path = tmp_path / "trace.csv"
    write_trace(case, path)
    pl.read_csv(path).reverse().write_csv(path)
    check_schedule(hf.simulate(hf.compile(configure(case, path))), case)


def test_the_written_tables_hold_the_schedule(cases: list[Case], tmp_path: Path) -> None:
    import polars as pl

    case = cases[-1]
    path = tmp_path / "trace.parquet"
    write_trace(case, path)
    hf.simulate(hf.compile(configure(case, path))).write(tmp_path / "run")
    requests = pl.read_parquet(tmp_path / "run" / "requests.parquet")
    stages = pl.read_parquet(tmp_path / "run" / "stages.parquet")
    assert [round(seconds * US_PER_S) for seconds in requests["finish_s"]] == case["finish_us"]
    decodes = stages.filter(stages["kind"] == "decode")
    assert [round(seconds * US_PER_S) for seconds in decodes["start_s"]] == case["first_token_us"]
    assert [round(seconds * US_PER_S) for seconds in decodes["finish_s"]] == case["finish_us"]
