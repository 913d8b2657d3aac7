"""An engine and side tasks that take turns on one core are those of a naive simulator, to the nanosecond."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from oracles.shared_core import Request, run_core

import hermes_flow as hf
from hermes_flow.errors import CompileError

POOL = "+cluster.pools.side={kind: sequential, serves: [word_filter, guard, tool], cores: 1, shares_device_with: llm}"
SHARED = (
    *("pipeline=llm", "slo=none", POOL, "+hardware@cluster.pools.side.hardware=h100_sxm"),
    *("cluster.pools.llm.lookahead=0", "cost=affine", "cost.fixed_us=200", "cost.per_token_us=3"),
    "+pipeline.stages.filter={kind: word_filter, pool: side, measured: {fixed_us: 1}}",
    "+pipeline.stages.prefill.after=[filter]",
    "+pipeline.stages.guard={kind: guard, of: answer, after: [decode]}",
)


SMALL = ("workload=synthetic", "workload.requests=2")


def drawn(seed: int, count: int, gap_us: float) -> list[Request]:
    rng = np.random.default_rng(seed)
    arrival = np.cumsum(rng.exponential(gap_us, count)).astype(int) * 1000
    arrival[5:9] = arrival[5]  # some come at once
    return [
        Request(int(at), *(int(size) for size in (a * 1000, p, n, b * 1000)))
        for at, a, p, n, b in zip(
            np.sort(arrival),
            rng.integers(1, 900, count),
            rng.integers(1, 60, count),
            rng.integers(1, 12, count),
            rng.integers(1, 700, count),
            strict=True,
        )
    ]


def traced(path: Path, requests: list[Request]) -> str:
    rows: list[dict[str, Any]] = [
        {
            "arrival_ns": one.arrival,
            "input_tokens": one.prompt,
            "output_tokens": one.output,
            "stages": [
                {"stage": "filter", "duration_us": one.before / 1000},
                {"stage": "guard", "duration_us": one.after / 1000},
            ],
        }
        for one in requests
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return f"workload.path={path}"


@pytest.mark.parametrize(("seed", "gap_us"), [(1, 900.0), (2, 2500.0)])
def test_an_engine_and_its_side_tasks_take_turns(seed: int, gap_us: float, tmp_path: Path) -> None:
    requests = drawn(seed, 60, gap_us)
    result = hf.simulate(
        hf.compile(hf.compose([*SHARED, "workload=trace", traced(tmp_path / "t.jsonl", requests)]))
    )
    run_core(requests, 200_000, 3_000)
    found = result.requests
    first = np.rint((found["first_token_s"] * 1e9).to_numpy()).astype(int).tolist()
    finish = np.rint((found["finish_s"] * 1e9).to_numpy()).astype(int).tolist()
    assert first == [one.first for one in requests]
    assert finish == [one.finish for one in requests]
    starts = result.stages.filter(pl.col("stage").is_in(["filter", "guard"])).sort("request", "start_s")[
        "start_s"
    ]
    assert np.rint((starts * 1e9).to_numpy()).astype(int).tolist() == [
        at for one in requests for at in one.starts
    ]


def test_a_core_that_is_shared_is_slower_than_two_cores(tmp_path: Path) -> None:
    load = ("workload=trace", traced(tmp_path / "t.jsonl", drawn(4, 40, 900.0)))
    shared = hf.simulate(hf.compile(hf.compose([*SHARED, *load])))
    apart = hf.simulate(
        hf.compile(hf.compose([*SHARED, *load, "cluster.pools.side.shares_device_with=null"]))
    )
    assert shared.summary["e2e_s"]["mean"] > 1.1 * apart.summary["e2e_s"]["mean"]
    busy = dict(shared.clients.select("pool", "busy_fraction").iter_rows())
    assert 0.85 < busy["llm"] + busy["side"] <= 1.0
    assert shared.summary["cost"]["usd_per_hour"] < apart.summary["cost"]["usd_per_hour"]


def test_two_hosts_on_one_core_are_one_queue(tmp_path: Path) -> None:
    rows = [
        {
            "arrival_us": 100 * number,
            "input_tokens": 5,
            "output_tokens": 2,
            "stages": [{"stage": "filter", "duration_us": 70}, {"stage": "guard", "duration_us": 90}],
        }
        for number in range(6)
    ]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    side = POOL.replace("word_filter, guard, tool", "word_filter").replace("shares_device_with: llm", "x: 1")
    result = hf.simulate(
        hf.compile(
            hf.compose(
                [
                    *("pipeline=llm", "slo=none", side.replace(", x: 1", "")),
                    "+cluster.pools.guards={kind: sequential, serves: [guard], shares_device_with: side}",
                    *(
                        f"+hardware@cluster.pools.{name}.hardware=sapphire_rapids"
                        for name in ("side", "guards")
                    ),
                    "+pipeline.stages.filter={kind: word_filter, pool: side}",
                    "+pipeline.stages.guard={kind: guard, after: [filter]}",
                    "+pipeline.stages.prefill.after=[guard]",
                    *("workload=trace", f"workload.path={tmp_path / 't.jsonl'}"),
                ]
            )
        )
    )
    ended = result.stages.filter(pl.col("stage").is_in(["filter", "guard"])).sort("finish_s")
    # by hand: 0-70 filter 0, 70-160 guard 0, 160-230 filter 1, 230-300 filter 2, then guards 1 and 2 by readiness …
    assert ended["stage"].to_list()[:6] == ["filter", "guard", "filter", "filter", "guard", "filter"]
    assert (ended["finish_s"][:6] * 1e6).round(3).to_list() == [70.0, 160.0, 230.0, 300.0, 390.0, 460.0]


@pytest.mark.parametrize(
    ("pool", "keys", "message"),
    [
        ("side", {"shares_device_with": "lm"}, r"no pool is called 'lm'; did you mean 'llm'"),
        ("side", {"shares_device_with": "side"}, r"shares_device_with: its own name"),
        ("side", {"cores": 2}, r"cluster\.pools\.side\.cores: 2, but it has the one device"),
        ("side", {"host": "host"}, r"cluster\.pools\.side\.host: 'host'; the machine is that of 'llm'"),
        ("llm", {"lookahead": 1}, r"llm\.lookahead: 1, but 'side' takes turns .* expected 0"),
        ("llm", {"tensor_parallel": 2}, r"cluster\.pools\.llm: 2 devices, but 'side' takes turns"),
        ("llm", {"batching": "static"}, r"cluster\.pools\.llm\.batching: static, but 'side' takes turns"),
        ("side", {"shares_device_with": "host"}, r"cluster\.pools\.host\.cores: 56, but 'side' takes turns"),
    ],
)
def test_what_cannot_take_turns_is_refused(pool: str, keys: dict[str, Any], message: str) -> None:
    config = composed()
    pools = dict(config.cluster.pools)
    pools[pool] = replace(pools[pool], **keys)  # type: ignore[type-var]
    with pytest.raises(CompileError, match=message):
        hf.compile(replace(config, cluster=replace(config.cluster, pools=pools)))


def test_only_the_scheduler_of_vllm_and_the_same_hardware_take_turns() -> None:
    other = ("engine=sglang", "hardware@cluster.pools.side.hardware=l40s")
    with pytest.raises(CompileError) as caught:
        hf.compile(hf.compose([*SHARED, *SMALL, *other]))
    text = str(caught.value)
    assert "engine: sglang, but 'side' takes turns on its device; expected vllm" in text
    assert "cluster.pools.side.hardware: l40s, but 'llm' is on h100_sxm; expected the same" in text


@cache
def composed() -> hf.Config:
    """The shared device with a host beside it, which nothing shares."""
    text = "+pipeline.stages.text={kind: tokenize, after: [guard]}"
    return hf.compose([*SHARED, *SMALL, text])
