"""SGLang's scheduler in a client: equal to the naive simulator on random systems, alone and in pipelines."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from oracles.sglang_cases import oracle_of
from tries import tries
from validation.test_sglang_schedules import check_schedule, configure, read, write_trace

import hermes_flow as hf
from hermes_flow.errors import CompileError

SAMPLE = Path(__file__).parents[2] / "validation" / "sglang_sample.json.gz"
FEW = ["engine=sglang", "workload=synthetic", "workload.requests=150", "slo=none"]


def random_case(rng: random.Random) -> dict[str, Any]:
    """Draw a small system with memory for every single request."""
    page = rng.choice([1, 1, 4, 16])
    count = rng.randint(2, 14)
    radix, aware = rng.random() < 0.6, rng.random() < 0.5
    requests: list[dict[str, Any]] = []
    at = 0
    for number in range(count):
        at += rng.choice([0, rng.randint(1, 40_000)])
        row: dict[str, Any] = {"arrival_us": at, "family": rng.randint(0, 2)}
        before = rng.randrange(number) if number and radix and rng.random() < 0.3 else None
        row["output"] = rng.randint(1, 60)
        if before is None:
            row["prompt"] = rng.randint(1, 90)
            row["shared"] = min(row["prompt"], rng.choice([0, 16, 48])) if radix else 0
        else:
            row |= {"after": before, "shared": 0}
            row["prompt"] = requests[before]["prompt"] + requests[before]["output"] + rng.randint(1, 20)
        row["ignore_eos"] = aware
        row["max_new_tokens"] = (
            row["output"] if aware else row["output"] + rng.choice([0, rng.randint(0, 60)])
        )
        requests.append(row)
    most = max(row["prompt"] + row["max_new_tokens"] for row in requests)
    steady = sum(row["prompt"] + row["max_new_tokens"] for row in requests)
    memory = most + 4 * page + 10 + rng.randint(0, max(1, steady // 5))
    return {
        "max_running_requests": rng.randint(1, 8),
        "max_prefill_tokens": rng.choice([32, 100, 16384]),
        "chunked_prefill_size": rng.choice([-1, 16, 32, 64]) if page <= 16 else -1,
        "page_size": page,
        "max_total_num_tokens": -(-memory // page) * page,
        "schedule_policy": rng.choice(["fcfs", "lpm"]) if radix else "fcfs",
        "schedule_conservativeness": rng.choice([0.02, 0.05, 0.3, 1.0]),
        "mixed_chunk": rng.random() < 0.4,
        "radix_cache": radix,
        "overlap": rng.random() < 0.6,
        "cost": {
            "fixed": rng.randint(500, 5000),
            "per_token": rng.randint(0, 50),
            "per_context": rng.randint(0, 3),
        },
        "requests": requests,
    }


def recorded_by_oracle(case: dict[str, Any]) -> dict[str, Any]:
    scheduler = oracle_of(case)
    scheduler.run()
    requests = scheduler.requests_by_number()
    return case | {
        "steps": [
            [step.start, step.duration, step.mode, {str(r.number): n for r, n in step.tokens}, step.retracted]
            for step in scheduler.steps
        ],
        "first_token_us": [request.first for request in requests],
        "finish_us": [request.finish for request in requests],
        "cached_tokens": [request.cached for request in requests],
    }


def test_random_systems_equal_the_naive_simulator(tmp_path: Path) -> None:
    retracted = 0
    for seed in range(tries(150, of=300)):
        case = recorded_by_oracle(random_case(random.Random(seed)))
        if min(case["finish_us"]) < 0:  # the engine itself would wait for ever
            continue
        path = tmp_path / f"{seed}.parquet"
        write_trace(case, path)
        check_schedule(hf.simulate(hf.compile(configure(case, path))), case)
        retracted += sum(len(step[4]) for step in case["steps"])
    assert retracted > 5


def test_random_systems_that_look_for_requests_after_some_steps_equal_the_naive_simulator(
    tmp_path: Path,
) -> None:
    later = 0
    for seed in range(1000, 1000 + tries(15, of=300)):
        rng = random.Random(seed)
        drawn = random_case(rng) | {"scheduler_recv_interval": rng.choice([2, 7, 20])}
        case, at_once = recorded_by_oracle(drawn), recorded_by_oracle(drawn | {"scheduler_recv_interval": 1})
        if min(case["finish_us"] + at_once["finish_us"]) < 0:  # the engine itself would wait for ever
            continue
        path = tmp_path / f"{seed}.parquet"
        write_trace(case, path)
        check_schedule(hf.simulate(hf.compile(configure(case, path))), case)
        later += case["first_token_us"] != at_once["first_token_us"]
    assert later > 1


def test_who_waits_for_the_answers_changes_nothing(tmp_path: Path) -> None:
    """With a stage behind it, every step may be an event of the engine: the schedule stays the same."""
    cases = read(SAMPLE)
    cases += [case | {"scheduler_recv_interval": 5} for case in cases[:3]]
    for number, case in enumerate(cases):
        path = tmp_path / f"{number}.parquet"
        write_trace(case, path)
        alone = configure(case, path)
        stages = {
            "prefill": {"kind": "prefill"},
            "decode": {"kind": "decode", "after": ["prefill"]},
            "detokenize": {"kind": "detokenize", "after": ["decode"]},
        }
        followed = hf.compose(["pipeline=chat"]).pipeline
        awaited = replace(alone, pipeline=replace(followed, stages=stages))
        ours, theirs = hf.simulate(hf.compile(awaited)), hf.simulate(hf.compile(alone))
        assert ours.requests["first_token_s"].to_list() == theirs.requests["first_token_s"].to_list()
        assert ours.summary["itl_s"] == theirs.summary["itl_s"]


@pytest.mark.parametrize(
    "routing",
    [
        "least_requests",
        "least_tokens",
        "least_kv",
        "least_expected_work",
        "prefix_affinity",
        "least_work_left",
    ],
)
def test_every_routing_policy_sees_its_clients(routing: str) -> None:
    result = hf.simulate(
        hf.compile(
            hf.compose([*FEW, "pipeline=chat", "cluster.pools.llm.count=3", f"cluster.routing={routing}"])
        )
    )
    assert result.summary["requests"]["completed"] == 150
    shares = result.clients.filter(result.clients["pool"] == "llm")["tokens"]
    assert shares.min() > 0


def test_the_gaps_between_tokens_are_those_of_the_requests() -> None:
    """The mean over all gaps of a run is the mean of TPOT, weighted by the gaps of each request."""
    result = hf.simulate(hf.compile(hf.compose([*FEW, "pipeline=llm", "workload.rate_per_s=20"])))
    requests = result.requests
    gaps = requests["output_tokens"] - 1
    expected = (requests["tpot_s"].fill_null(0.0) * gaps).sum() / gaps.sum()
    assert result.summary["itl_s"]["mean"] == pytest.approx(expected, rel=1e-9)


def test_the_program_says_which_scheduler_runs() -> None:
    text = str(hf.compile(hf.compose([*FEW, "pipeline=llm"])))
    assert "SGLang's scheduler, overlapped: at most 2048 running requests" in " ".join(text.split())
    assert "prefix cache on (by default: SGLang keeps every prompt" in " ".join(text.split())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["engine=vllm", "cluster.pools.llm.mixed_chunk=true"],
            "cluster.pools.llm.mixed_chunk: true, but the scheduler",
        ),
        (["cluster.pools.llm.batching=continuous"], "cluster.pools.llm.batching: 'continuous' has no effect"),
        (
            ["cluster.pools.llm.packing=shortest_prompt"],
            "is not an order of SGLang; expected one of: fcfs, lpm",
        ),
        (
            ["engine=tensorrt_llm", "cluster.pools.llm.scheduler_recv_interval=10"],
            "cluster.pools.llm.scheduler_recv_interval: 10, but the scheduler of engine 'tensorrt_llm'",
        ),
        (
            ["cluster=disaggregated", "cluster.pools.prefill.scheduler_recv_interval=10"],
            "scheduler_recv_interval: 10 is not modelled where prefill and decode have pools of their own",
        ),
        (["cluster.pools.llm.pipeline_parallel=2"], "cluster.pools.llm.pipeline_parallel: 2 is not modelled"),
    ],
)
def test_what_is_not_modelled_is_an_error(overrides: list[str], message: str) -> None:
    with pytest.raises(CompileError) as caught:
        hf.compile(hf.compose([*FEW, "pipeline=llm", *overrides]))
    assert message in str(caught.value)


@pytest.mark.parametrize(("cached", "warned"), [("true", False), ("false", True)])
def test_longest_prefix_first_without_a_prefix_cache_is_named(cached: str, warned: bool) -> None:
    chosen = ["pipeline=llm", "engine=sglang", "cluster.pools.llm.packing=lpm"]
    program = hf.compile(hf.compose([*chosen, f"cluster.pools.llm.prefix_cache={cached}"]))
    assert ("cluster.pools.llm.packing: lpm is as fcfs here" in str(program.warnings)) is warned
