"""Sessions and shared system prompts through the public contract: what is found, when turns come, what is lost."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from cli.command import hermes_flow
from compiler.configs import with_stages
from pools.llm.deployments import with_pool

import hermes_flow as hf
from hermes_flow.program.prefixes import SessionPrefixes
from hermes_flow.program.units import Ints

Overrides = tuple[str, ...]

# One client, blocks without end, a step of a millisecond; half of the default number of sessions.
AMPLE: Overrides = (
    "pipeline=llm",
    "slo=none",
    "workload=sessions",
    "workload.sessions=100",
    "cost=affine",
    "cost.fixed_us=1000",
    "cluster.pools.llm.prefix_cache=true",
    "cluster.pools.llm.kv_blocks=1000000",
)
ALONE: Overrides = ("workload.system_prompt_tokens=0",)


@cache
def composed(*overrides: str) -> hf.Config:
    return hf.compose(overrides)


@cache
def simulated(*overrides: str) -> hf.Result:
    return hf.simulate(hf.compile(composed(*overrides)))


def previous(result: hf.Result) -> Ints:
    before = result.recording.program.requests.previous
    assert before is not None
    return before


def cached(result: hf.Result) -> Ints:
    return result.requests["cached_tokens"].to_numpy()


def prefixes(result: hf.Result) -> SessionPrefixes:
    found = result.recording.program.requests.prefixes
    assert isinstance(found, SessionPrefixes)
    return found


@pytest.mark.parametrize("block_size", [1, 7, 16, 100])
@pytest.mark.parametrize("lookahead", [0, 1])
def test_a_turn_finds_the_full_blocks_of_all_that_was_said_before(block_size: int, lookahead: int) -> None:
    config = with_pool(composed(*AMPLE, *ALONE), "llm", block_size=block_size, lookahead=lookahead)
    result = hf.simulate(hf.compile(config))
    requests, before = result.requests, previous(result)
    # The last token of an answer is never computed.
    computed = (requests["input_tokens"] + requests["output_tokens"] - 1).to_numpy()
    expected = np.where(before < 0, 0, computed[before] // block_size * block_size)
    assert cached(result).tolist() == expected.tolist()
    assert (before >= 0).sum() > 250


@pytest.mark.parametrize("block_size", [1, 7, 16, 100])
@pytest.mark.parametrize("tokens", [50, 96, 100, 101])
def test_sessions_share_the_full_blocks_of_their_system_prompt_and_no_more(
    block_size: int, tokens: int
) -> None:
    apart = ("workload.arrivals=constant", "workload.rate_per_s=0.2", "workload.turns=1")
    prompts = (f"workload.system_prompt_tokens={tokens}", "workload.system_prompts=3")
    config = with_pool(composed(*AMPLE, *apart, *prompts), "llm", block_size=block_size)
    result = hf.simulate(hf.compile(config))
    system_prompt = prefixes(result).system_prompt.tolist()
    first = [number for number, which in enumerate(system_prompt) if which not in system_prompt[:number]]
    shared = tokens // block_size * block_size
    assert len(first) == 3
    assert cached(result).tolist() == [0 if row in first else shared for row in range(100)]


def test_turns_of_sessions_with_a_system_prompt_find_both() -> None:
    result = simulated(*AMPLE, "workload.system_prompt_tokens=100", "workload.rate_per_s=0.001")
    requests, before = result.requests, previous(result)
    computed = (requests["input_tokens"] + requests["output_tokens"] - 1).to_numpy()
    seen: set[int] = set()
    for row, (which, found) in enumerate(zip(prefixes(result).system_prompt, cached(result), strict=True)):
        if before[row] >= 0:
            assert found == computed[before[row]] // 16 * 16
        else:
            assert found == (96 if which in seen else 0)
        seen.add(which)
    assert len(seen) == 4


def test_without_a_prefix_cache_nothing_is_found() -> None:
    with_cache = simulated(*AMPLE, "cost.per_token_us=1")
    result = simulated(*AMPLE, "cost.per_token_us=1", "cluster.pools.llm.prefix_cache=false")
    assert not cached(result).any()
    columns = ["session", "input_tokens", "output_tokens"]
    assert result.requests[columns].equals(with_cache.requests[columns])
    assert result.summary["ttft_s"]["mean"] > with_cache.summary["ttft_s"]["mean"]


@pytest.mark.parametrize(
    "overrides",
    [
        ("pipeline=chat", "cluster.pools.llm.count=3", "cluster.routing=least_requests"),
        ("pipeline=llm", "cluster.pools.llm.kv_blocks=700", "cluster.pools.llm.prefix_cache=true"),
        ("pipeline=llm", "cluster=disaggregated", "cluster.pools.prefill.prefix_cache=true"),
        ("pipeline=chat", "workload.think_time_s=0", "workload.arrivals={process: gamma, cv: 3}"),
    ],
)
def test_a_turn_arrives_exactly_a_think_time_after_the_answer_before_it(overrides: Overrides) -> None:
    common = ("workload=sessions", "workload.sessions=100", "workload.rate_per_s=3", "slo=none")
    result = simulated(*common, *overrides)
    recording, requests = result.recording, result.recording.program.requests
    before = previous(result)
    later = np.flatnonzero(before >= 0)
    assert (recording.status == 0).all()
    assert requests.think_ns is not None
    expected = recording.finish_ns[before[later]] + requests.think_ns[later]
    assert recording.arrival_ns[later].tolist() == expected.tolist()
    first = before < 0
    assert recording.arrival_ns[first].tolist() == requests.arrival_ns[first].tolist()
    assert result.requests["session"].to_list() == (np.cumsum(first) - 1).tolist()
    assert result.summary["requests"] == {"submitted": len(first), "completed": len(first), "failed": 0}


def test_what_an_answer_computed_elsewhere_is_not_found_where_prompts_are_prefilled() -> None:
    result = simulated(
        "workload=sessions",
        "pipeline=llm",
        "cluster=disaggregated",
        "cluster.pools.prefill.prefix_cache=true",
        "cluster.pools.prefill.kv_blocks=1000000",
        *ALONE,
    )
    before, prompt = previous(result), result.requests["input_tokens"].to_numpy()
    expected = np.where(before < 0, 0, prompt[before] // 16 * 16)
    assert cached(result).tolist() == expected.tolist()


@pytest.mark.parametrize(
    "change", ["+pipeline.stages.prefill.extra_tokens=40", "+pipeline.stages.decode.output_scale=2"]
)
def test_documents_and_reasoning_are_not_part_of_the_next_prompt(change: str) -> None:
    result = simulated(*AMPLE, *ALONE, change)
    before, prompt = previous(result), result.requests["input_tokens"].to_numpy()
    expected = np.where(before < 0, 0, prompt[before] // 16 * 16)
    assert cached(result).tolist() == expected.tolist()


def test_only_what_the_user_reads_is_part_of_the_next_prompt() -> None:
    draft = {"draft": {"kind": "prefill"}, "scribble": {"kind": "decode", "after": ["draft"]}}
    answer = {
        "prefill": {"kind": "prefill", "after": ["scribble"], "extra_tokens": 40},
        "decode": {"kind": "decode", "after": ["prefill"]},
    }
    result = hf.simulate(hf.compile(with_stages({**draft, **answer}, hf.compose([*AMPLE, *ALONE]))))
    before, prompt = previous(result), result.requests["input_tokens"].to_numpy()
    drafted, answered = (op.cached_tokens for op in result.recording.ops)
    assert drafted is not None
    assert answered is not None
    # The draft's own tokens are nobody's prompt, and the answer comes after documents that the next turn drops.
    assert drafted.tolist() == np.where(before < 0, 0, prompt[before] // 16 * 16).tolist()
    assert answered.tolist() == (prompt // 16 * 16).tolist()


def test_a_small_cache_finds_less_and_serves_everybody() -> None:
    small = simulated(*AMPLE, "cluster.pools.llm.kv_blocks=800", "workload.rate_per_s=4")
    ample = simulated(*AMPLE, "workload.rate_per_s=4")
    assert 0 < cached(small).sum() < 0.5 * cached(ample).sum()
    assert (small.recording.status == 0).all()


@pytest.mark.parametrize("pipeline", ["llm", "chat"])
def test_a_turn_that_does_not_fit_ends_its_session_and_all_is_reported(pipeline: str) -> None:
    result = simulated(*AMPLE, f"pipeline={pipeline}", "cluster.pools.llm.kv_blocks=150")
    recording, before = result.recording, previous(result)
    program = recording.program
    too_long = (result.requests["input_tokens"] + program.requests.output_tokens - 1).to_numpy() > 150 * 16
    cause = "larger than the KV cache of llm (2,400 tokens)"
    lost = "after a rejected turn of the same session"
    for request in range(len(before)):
        gone = before[request] in program.rejected
        expected = cause if too_long[request] else lost if gone else None
        assert program.rejected.get(request) == expected
        if gone:
            assert recording.arrival_ns[request] == recording.arrival_ns[before[request]]
    failed = len(program.rejected)
    assert 25 < failed < len(before) - 25
    assert result.summary["requests"]["failed"] == failed
    assert result.requests["arrival_s"].null_count() == 0
    assert sum(result.requests["status"] == "failed") == failed
    ended = [row for row in program.rejected if before[row] >= 0 and before[row] not in program.rejected]
    think = program.requests.think_ns
    assert think is not None
    for row in ended:
        assert recording.arrival_ns[row] == recording.finish_ns[before[row]] + think[row]


def test_later_turns_are_lost_even_where_they_would_be_served() -> None:
    # Prompts of 100, 230, 360, 490 and 620 tokens; the last two would not go to the model, which holds 320.
    result = simulated(
        *AMPLE,
        *ALONE,
        "workload.turns=5",
        "workload.input_tokens=100",
        "workload.output_tokens=30",
        "cluster.pools.llm.kv_blocks=20",
        "+pipeline.stages.prefill.when='input_tokens < 400'",
    )
    rejected = result.recording.program.rejected
    lost = "after a rejected turn of the same session"
    reasons = [None, None, "larger than the KV cache of llm (320 tokens)", lost, lost]
    assert [rejected.get(request) for request in range(500)] == reasons * 100
    assert result.summary["requests"] == {"submitted": 500, "completed": 200, "failed": 300}
    assert f"200 requests failed: {lost}" in result.summary["warnings"]


def test_equal_configs_give_equal_tables_and_another_seed_others() -> None:
    tables = [hf.simulate(hf.compile(hf.compose([*AMPLE, seed]))) for seed in ("seed=1", "seed=1", "seed=2")]
    assert tables[0].requests.equals(tables[1].requests)
    assert tables[0].stages.equals(tables[1].stages)
    assert not tables[0].requests.equals(tables[2].requests)


def test_sessions_that_come_faster_than_they_are_served_are_called_saturated() -> None:
    def saturated(rate: float, seed: int) -> bool:
        speed = ("cost.fixed_us=20000", "cluster.pools.llm.max_num_seqs=4", f"workload.rate_per_s={rate}")
        size = ("workload.output_tokens=50", "workload.think_time_s=1", "workload.turns=4")
        config = composed(*AMPLE, *speed, *size)
        config = replace(config, seed=seed, workload=replace(config.workload, seed=seed))
        result = hf.simulate(hf.compile(config))
        return bool(result.summary["limits"]["saturated"])

    # A turn takes about 51 steps of 20 ms on one of 4 seats: 0.98 sessions a second.
    assert all(saturated(3.0, seed) for seed in range(4))
    assert not any(saturated(0.5, seed) for seed in range(4))


def test_the_schedule_shows_sessions_and_think_times() -> None:
    text = str(hf.compile(hf.compose(["workload=sessions", "workload.think_time_s=2.5", "workload.turns=3"])))
    assert "schedule: 600 requests in 200 sessions that begin over 39" in text
    rows = [line.split() for line in text.split("arrival_s")[1].splitlines()[1:9]]
    assert [row[1] == "+2.500000" for row in rows] == [False, True, True] * 2 + [False, True]
    assert text.rstrip().endswith("+: seconds after the answer to the request before")


def test_a_sweep_over_turns(tmp_path: Path) -> None:
    done = hermes_flow(tmp_path, "-m", "workload=sessions", "workload.sessions=5", "workload.turns=1,3")
    assert (done.status, done.err) == (0, "")
    table = pl.read_parquet(tmp_path / done.folder / "sweep.parquet")
    assert table["workload.turns"].to_list() == [1, 3]
    assert table["requests.completed"].to_list() == [5, 15]
