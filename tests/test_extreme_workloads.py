"""Workloads at the edges of what is allowed, through the public path, against the naive client."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from oracles.llm_client import OracleRequest, simulate_llm_client
from trace_files import write_trace

import hermes_flow as hf
from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.units import NS_PER_S, PS_PER_NS

Rows = list[tuple[float, int, int]]

ONE_TOKEN: Rows = [(0, 1, 1)] * 40
ALONE: Rows = [(0.5, 17, 9)]
LONG_PROMPTS: Rows = [(0, 100, 3), (0, 7, 2), (0.0001, 64, 1), (0.0001, 65, 5)]
ALL_AT_ONCE: Rows = [(0, 1 + k % 23, 1 + k % 7) for k in range(60)]
LATE: Rows = [(2_000_000, 30, 4), (2_000_000, 3, 40), (5_000_000, 1, 1)]
LONG_ANSWERS: Rows = [(0, 1, 900), (0, 1, 901), (0.003, 2, 899)]

WORKLOADS = (ONE_TOKEN, ALONE, LONG_PROMPTS, ALL_AT_ONCE, LATE, LONG_ANSWERS)

ENGINES: dict[str, dict[str, int]] = {
    "one token a step": {"max_num_seqs": 1, "max_num_batched_tokens": 1, "block_size": 1, "kv_blocks": 1000},
    "one seat": {"max_num_seqs": 1, "max_num_batched_tokens": 8, "kv_blocks": 60},
    "no token to spare": {"max_num_seqs": 4, "max_num_batched_tokens": 4, "block_size": 1, "kv_blocks": 1000},
    "no block to spare": {
        "max_num_seqs": 64,
        "max_num_batched_tokens": 64,
        "block_size": 1,
        "kv_blocks": 901,
    },
    "huge blocks": {"max_num_seqs": 3, "max_num_batched_tokens": 16, "block_size": 4096, "kv_blocks": 3},
}


def write(rows: Rows, folder: Path) -> Path:
    write_trace(folder / "trace.csv", rows)
    return folder / "trace.csv"


@cache
def template() -> hf.Config:
    costs = ["cost=affine", "cost.fixed_us=700", "cost.per_token_us=13", "cost.per_context_us=0.25"]
    return hf.compose(["pipeline=llm", "slo=none", "workload=trace", "workload.path=-", *costs])


def compile_trace(rows: Rows, folder: Path, **engine: int | str) -> hf.Program:
    config: Any = template()
    pool = replace(config.cluster.pools["llm"], **engine)
    return hf.compile(
        replace(
            config,
            cluster=replace(config.cluster, pools={"llm": pool}),
            workload=replace(config.workload, path=str(write(rows, folder))),
        )
    )


@pytest.mark.parametrize("batching", ["chunked", "continuous"])
@pytest.mark.parametrize("lookahead", [0, 1])
@pytest.mark.parametrize("engine", ENGINES)
def test_edges_agree_with_the_naive_client(
    tmp_path: Path, engine: str, batching: str, lookahead: int
) -> None:
    for rows in WORKLOADS:
        program = compile_trace(rows, tmp_path, batching=batching, lookahead=lookahead, **ENGINES[engine])
        assert not program.rejected
        (spec,) = (pool.client for pool in program.pools)
        assert isinstance(spec, LLMClientSpec)
        requests = [OracleRequest(round(at * NS_PER_S), prompt, output) for at, prompt, output in rows]
        expected = simulate_llm_client(spec, requests)
        op = hf.simulate(program).recording.ops[0]
        assert op.first_ns is not None
        assert op.preemptions is not None
        assert op.start_ns.tolist() == [time // PS_PER_NS for time in expected.start_ps]
        assert op.first_ns.tolist() == [time // PS_PER_NS for time in expected.first_ps]
        assert op.finish_ns.tolist() == [time // PS_PER_NS for time in expected.finish_ps]
        assert op.preemptions.tolist() == expected.preemptions


def test_a_lone_request_takes_the_sum_of_its_steps(tmp_path: Path) -> None:
    result = hf.simulate(compile_trace([(3, 10, 4)], tmp_path))
    prefill = 700 + 13 * 10
    decodes = [700 + 13 + 0.25 * context for context in (10, 11, 12)]
    (row,) = result.requests.iter_rows(named=True)
    assert row["ttft_s"] * 1e6 == pytest.approx(prefill)
    assert row["e2e_s"] * 1e6 == pytest.approx(prefill + sum(decodes))
    assert row["tpot_s"] * 1e6 == pytest.approx(sum(decodes) / 3)


def test_an_answer_of_one_token_has_no_time_per_output_token(tmp_path: Path) -> None:
    result = hf.simulate(compile_trace(ONE_TOKEN, tmp_path))
    assert result.requests["tpot_s"].null_count() == len(ONE_TOKEN)
    assert (result.requests["first_token_s"] == result.requests["finish_s"]).all()
    assert result.summary["requests"]["completed"] == len(ONE_TOKEN)


def test_a_request_just_fits_the_kv_cache_or_is_rejected(tmp_path: Path) -> None:
    # The last token is never computed, so a request holds prompt + output - 1 tokens at most.
    rows: Rows = [(0, 60, 5), (0, 60, 6), (0, 64, 1), (0, 65, 1), (0, 1, 64), (0, 1, 65)]
    result = hf.simulate(compile_trace(rows, tmp_path, kv_blocks=4, block_size=16))
    status = result.requests["status"].to_list()
    assert status == ["completed", "failed", "completed", "failed", "completed", "failed"]
    failed = result.requests.filter(result.requests["status"] == "failed")
    for column in ("first_token_s", "finish_s", "ttft_s", "tpot_s", "e2e_s"):
        assert failed[column].null_count() == len(failed)
    assert sorted(result.recording.failures) == [1, 3, 5]
    assert all("KV cache" in reason for reason in result.recording.failures.values())
    assert result.summary["requests"] == {"submitted": 6, "completed": 3, "failed": 3}
    assert any("rejected" in warning for warning in result.summary["warnings"])


def test_a_request_just_fits_the_models_context_or_is_rejected(tmp_path: Path) -> None:
    rows: Rows = [(0, 131_071, 1), (0, 131_072, 1), (0, 1, 131_071), (0, 2, 131_071)]
    program = compile_trace(rows, tmp_path, kv_blocks=20_000)
    assert sorted(program.rejected) == [1, 3]


def test_a_workload_of_which_nothing_can_be_served_is_refused(tmp_path: Path) -> None:
    with pytest.raises(hf.CompileError, match="nothing can be served"):
        compile_trace([(0, 200_000, 1)] * 3, tmp_path)


def test_rejected_requests_do_not_hold_up_a_closed_loop() -> None:
    config = hf.compose(
        [
            "pipeline=llm",
            "slo=none",
            "workload=closed_loop",
            "workload.requests=3000",
            "workload.arrivals.concurrency=2",
            "workload.input_tokens={distribution: choice, values: [8, 8000]}",
            "workload.output_tokens=2",
            "cost=affine",
            "cost.fixed_us=10",
            "cluster.pools.llm.kv_blocks=4",
        ]
    )
    result = hf.simulate(hf.compile(config))
    counts = result.summary["requests"]
    assert counts["completed"] + counts["failed"] == counts["submitted"] == 3000
    assert 1300 < counts["failed"] < 1700
    assert result.requests["arrival_s"].null_count() == 0


@pytest.mark.parametrize("arrival_s", [8_000_000, 9_300_000, 200_000_000])
def test_arrivals_months_from_now_are_served_or_refused_in_words(tmp_path: Path, arrival_s: int) -> None:
    try:
        result = hf.simulate(compile_trace([(0, 5, 3), (arrival_s, 5, 3)], tmp_path))
    except hf.HermesFlowError as error:
        assert arrival_s > 9_000_000, error  # noqa: PT017 (either outcome will do)
    else:
        first, last = result.requests["e2e_s"].to_list()
        assert last == pytest.approx(first, abs=1e-6)


SCRIPT = """
import sys, hermes_flow as hf
overrides = ["pipeline=chat", "workload=synthetic", "workload.requests=300", "workload.rate_per_s=20",
             "cluster.pools.llm.count=3", "cluster.pools.host.count=2", "cluster.routing=random"]
hf.simulate(hf.compile(hf.compose(overrides))).write(sys.argv[1])
"""


def test_the_tables_of_equal_runs_are_equal_byte_by_byte_in_any_process(tmp_path: Path) -> None:
    folders = []
    for hash_seed in ("1", "2"):
        folder = tmp_path / hash_seed
        environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run([sys.executable, "-c", SCRIPT, str(folder)], check=True, env=environment)
        folders.append(folder)
    for name in ("requests.parquet", "stages.parquet", "clients.parquet", "program.txt"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name
