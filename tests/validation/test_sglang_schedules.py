"""The whole public path against recorded schedules of the real SGLang scheduler: equal to the microsecond.

All cases are in the shared data; a sample of them lies beside this file, so that no checkout is without.
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
from oracles.sglang_cases import oracle_of
from tries import some_of

import hermes_flow as hf

US_PER_S = 1_000_000
NS_PER_US = 1000
SAMPLE = Path(__file__).with_name("sglang_sample.json.gz")

Case = dict[str, Any]

KEYS = {
    "max_num_seqs": "max_running_requests",
    "max_prefill_tokens": "max_prefill_tokens",
    "block_size": "page_size",
    "packing": "schedule_policy",
    "schedule_conservativeness": "schedule_conservativeness",
    "mixed_chunk": "mixed_chunk",
    "prefix_cache": "radix_cache",
}


def read(path: Path) -> list[Case]:
    with gzip.open(path, "rt") as file:
        cases: list[Case] = json.load(file)
    return cases


@pytest.fixture(scope="module")
def every_case(shared_data: Path) -> list[Case]:
    return read(shared_data / "sglang_schedules" / "cases.json.gz")


def pages(tokens: list[int], size: int) -> list[int]:
    """Return an id for each whole page, equal where all tokens up to the page's end are."""
    return [hash(tuple(tokens[: end + size])) for end in range(0, len(tokens) - size + 1, size)]


def write_trace(case: Case, path: Path) -> None:
    """Write the requests as a native trace, with ids of pages where the radix tree is on."""
    import polars as pl

    rows, size = case["requests"], case["page_size"]
    columns: dict[str, Any] = {
        "arrival_us": [row["arrival_us"] for row in rows],
        "input_tokens": [row["prompt"] for row in rows],
        "output_tokens": [row["output"] for row in rows],
        "output_limit": [row["max_new_tokens"] for row in rows],
        "ignore_eos": [row["ignore_eos"] for row in rows],
    }
    if case["radix_cache"]:
        contents = [request.content for request in oracle_of(case).requests_by_number()]
        split = [row["prompt"] // size for row in rows]
        ids = [pages(content, size) for content in contents]
        columns["prefix_hashes"] = [known[:at] for known, at in zip(ids, split, strict=True)]
        columns["answer_hashes"] = [known[at:] for known, at in zip(ids, split, strict=True)]
    lists = {"prefix_hashes", "answer_hashes"}
    pl.DataFrame(
        {
            name: pl.Series(values, dtype=pl.List(pl.Int64) if name in lists else None)
            for name, values in columns.items()
        }
    ).write_parquet(path)


def overrides(case: Case, path: Path) -> list[str]:
    """Return what a user would write for this case on the command line."""
    chunk = case["chunked_prefill_size"]
    pool = {key: str(case[name]).lower() for key, name in KEYS.items()}
    pool |= {
        "kv_blocks": str(case["max_total_num_tokens"] // case["page_size"]),
        "chunked_prefill_size": "null" if chunk < 0 else str(chunk),
        "lookahead": str(int(case["overlap"])),
    }
    return [
        "engine=sglang",
        "pipeline=llm",
        "slo=none",
        "workload=trace",
        f"workload.path={path}",
        f"workload.prefix_block_tokens={case['page_size']}",
        "cost=affine",
        *(f"cost.{name}_us={case['cost'][name]}" for name in ("fixed", "per_token", "per_context")),
        *(f"cluster.pools.llm.{name}={value}" for name, value in pool.items()),
    ]


@cache
def template() -> hf.Config:
    return hf.compose(
        [
            *("engine=sglang", "pipeline=llm", "slo=none", "workload=trace", "workload.path=-"),
            *("cost=affine", "cost.fixed_us=1", "cluster.pools.llm.kv_blocks=100"),
        ]
    )


def configure(case: Case, path: Path) -> hf.Config:
    """Return the config of ``overrides(case, path)`` without composing it anew."""
    config = template()
    chunk = case["chunked_prefill_size"]
    pool = replace(
        config.cluster.pools["llm"],  # type: ignore[type-var]
        **{key: case[name] for key, name in KEYS.items()},
        kv_blocks=case["max_total_num_tokens"] // case["page_size"],
        chunked_prefill_size=None if chunk < 0 else chunk,
        lookahead=int(case["overlap"]),
        scheduler_recv_interval=case.get("scheduler_recv_interval"),
    )
    return replace(
        config,
        cluster=replace(config.cluster, pools=config.cluster.pools | {"llm": pool}),
        workload=replace(config.workload, path=str(path), prefix_block_tokens=case["page_size"]),
        cost={"kind": "affine"} | {f"{name}_us": float(figure) for name, figure in case["cost"].items()},
    )


def check_schedule(result: hf.Result, case: Case) -> None:
    """Compare every first token, every finish, what was found in the tree, and every step."""
    requests = result.requests
    assert requests["status"].to_list() == ["completed"] * len(case["requests"])
    (op,) = result.recording.ops
    assert op.first_ns is not None
    np.testing.assert_array_equal(op.first_ns, np.array(case["first_token_us"]) * NS_PER_US)
    np.testing.assert_array_equal(op.finish_ns, np.array(case["finish_us"]) * NS_PER_US)
    assert requests["cached_tokens"].to_list() == case["cached_tokens"]
    assert requests["preemptions"].sum() == sum(len(step[4]) for step in case["steps"])
    steps = case["steps"]
    assert result.summary["engine"]["steps"] == len(steps)
    (client,) = (client for client in result.recording.clients if client.segments is not None)
    assert client.busy_ns == sum(step[1] for step in steps) * NS_PER_US
    tokens = result.clients.filter(result.clients["pool"] == "llm")["tokens"].item()
    assert tokens == sum(sum(step[3].values()) for step in steps)


def simulated(case: Case, path: Path) -> hf.Result:
    write_trace(case, path)
    return hf.simulate(hf.compile(configure(case, path)))


def test_overrides_as_on_the_command_line_meet_a_recorded_schedule(tmp_path: Path) -> None:
    for number, case in enumerate(read(SAMPLE)[:2]):
        path = tmp_path / f"case{number}.parquet"
        write_trace(case, path)
        check_schedule(hf.simulate(hf.compile(hf.compose(overrides(case, path)))), case)


def test_a_sample_of_recorded_schedules_is_met_to_the_microsecond(tmp_path: Path) -> None:
    cases = read(SAMPLE)
    assert {case["kind"] for case in cases} >= {"plain", "chunk", "retract", "radix_lpm", "mixed", "turns"}
    for number, case in enumerate(cases):
        check_schedule(simulated(case, tmp_path / f"case{number}.parquet"), case)


@pytest.mark.shared_data
def test_every_recorded_schedule_is_met_to_the_microsecond(every_case: list[Case], tmp_path: Path) -> None:
    assert len(every_case) >= 350
    wrong = []
    for number, case in enumerate(some_of(every_case, one_in=3)):
        path = tmp_path / f"case{number}.parquet"
        try:
            check_schedule(simulated(case, path), case)
        except AssertionError:
            wrong.append((number, case["kind"]))
    assert not wrong


@pytest.mark.shared_data
def test_the_naive_simulator_meets_every_recorded_schedule(every_case: list[Case]) -> None:
    for case in some_of(every_case, one_in=3):
        scheduler = oracle_of(case)
        scheduler.run()
        steps = [
            [step.start, step.duration, step.mode, {str(r.number): n for r, n in step.tokens}, step.retracted]
            for step in scheduler.steps
        ]
        assert steps == case["steps"]
        requests = scheduler.requests_by_number()
        assert [request.first for request in requests] == case["first_token_us"]
        assert [request.finish for request in requests] == case["finish_us"]
        assert [request.cached for request in requests] == case["cached_tokens"]
