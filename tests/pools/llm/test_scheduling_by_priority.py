"""vLLM's policy ``priority`` admits urgent requests first and preempts others for them, as in its naive scheduler."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from oracles.client_runs import gaps_between, tasks_of
from oracles.llm_client import OraclePolicy, OracleRequest, OracleResult, simulate_llm_client
from oracles.random_systems import RandomSystem, random_system
from oracles.worked_examples import client, schedule
from tries import tries

import hermes_flow as hf
from hermes_flow.pools.client import Calls
from hermes_flow.pools.llm.by_priority.build import priority_clients
from hermes_flow.pools.llm.deciding_client import DecidingClient
from hermes_flow.pools.llm.tasks import LLMTasks
from hermes_flow.program.units import NEVER, PS_PER_NS

POLICY = OraclePolicy(packing="vllm_priority")


def run(system: RandomSystem, looks: random.Random | None = None) -> tuple[DecidingClient, LLMTasks]:
    """Run a client to the end of all requests; with ``looks`` somebody reads its load as some of them arrive."""
    tasks = tasks_of(system)
    calls = Calls(lambda task, now: None, lambda task, now: None, lambda task, now, why: None, notify=False)
    spec = replace(system.spec, prefix_cache=system.policy.prefix_cache)
    (ours,) = priority_clients(1, spec, tasks, calls)
    events = [(request.arrival_ns, 0, task) for task, request in enumerate(system.requests)]
    events += [
        (request.withdrawn_ns, 1, task)
        for task, request in enumerate(system.requests)
        if request.withdrawn_ns is not None
    ]
    for at, kind, task in sorted(events):
        (ours.withdraw if kind else ours.submit)(task, at)
        if looks is not None and looks.random() < 0.5:
            ours.outstanding(at)
            ours.queued_tokens(at)
            ours.next_ns()
    ours.settle(NEVER)
    return ours, tasks


def out_of_turn(result: OracleResult, system: RandomSystem) -> int:
    """How many steps threw out a sequence that others were admitted after."""
    began = [-1] * len(system.requests)
    found = 0
    for place, step in enumerate(result.steps):
        for index in step.preempted:
            found += any(began[index] < other for other in began)
        for index in step.tokens:
            began[index] = place if began[index] < 0 else began[index]
    return found


@pytest.mark.parametrize("longest", [0, 5])
@pytest.mark.parametrize("prefix_cache", [False, True])
@pytest.mark.parametrize("lookahead", [0, 1])
def test_equals_the_naive_oracle_to_the_picosecond(lookahead: int, prefix_cache: bool, longest: int) -> None:
    rng = random.Random(f"priority{lookahead}{prefix_cache}{longest}")
    policy = replace(POLICY, prefix_cache=prefix_cache)
    preempting = earlier = again = 0
    for _ in range(tries(20, of=1500)):
        system = random_system(rng, "chunked", lookahead, policy)
        system = replace(system, spec=replace(system.spec, longest_chunk=longest))
        ours, tasks = run(system, rng)
        expected = simulate_llm_client(system.spec, system.requests, system.policy)
        assert list(tasks.finish_ps) == expected.finish_ps
        assert list(tasks.start_ps) == expected.start_ps
        assert list(tasks.first_ps) == expected.first_ps
        count = len(system.requests)
        assert [tasks.cached.get(task, 0) for task in range(count)] == expected.cached_tokens
        assert [tasks.preemptions.get(task, 0) for task in range(count)] == expected.preemptions
        record = ours.record(0)
        assert record.segments[:, 2].sum() == len(expected.steps)
        assert record.even_gaps is not None
        gaps = dict(record.even_gaps.tolist())
        assert gaps == gaps_between(system, expected.emitted_ps)
        assert record.kv_peak_blocks == max(step.used_blocks_after_planning for step in expected.steps)
        assert ours.kv_use(NEVER // PS_PER_NS - 1) == 0
        preempting += sum(expected.preemptions) > 0
        earlier += out_of_turn(expected, system)
        again += any(step.preempted_before for step in expected.steps)
    assert preempting > 5
    assert earlier > 5
    assert again or not lookahead


@pytest.mark.parametrize("lookahead", [0, 1])
def test_requests_that_are_taken_back_leave_at_the_next_decision(lookahead: int) -> None:
    rng = random.Random(f"priority withdrawn{lookahead}")
    cut = 0
    for _ in range(tries(16, of=600)):
        system = random_system(rng, "chunked", lookahead, POLICY)
        requests = [
            replace(request, withdrawn_ns=request.arrival_ns + rng.randint(0, 60))
            if rng.random() < 0.3
            else request
            for request in system.requests
        ]
        system = replace(system, requests=requests)
        ours, tasks = run(system)
        expected = simulate_llm_client(system.spec, system.requests, system.policy)
        assert [at for at, r in zip(tasks.finish_ps, requests, strict=True) if r.withdrawn_ns is None] == [
            at for at, r in zip(expected.finish_ps, requests, strict=True) if r.withdrawn_ns is None
        ]
        assert ours.record(0).segments[:, 2].sum() == len(expected.steps)
        cut += len(tasks.cuts)
    assert cut


def urgent(arrival_us: int, prompt: int, output: int, priority: int) -> OracleRequest:
    return OracleRequest(arrival_us * 1000, prompt, output, priority=priority)


def both(requests: list[OracleRequest], **spec: Any) -> list[tuple[int, int, dict[int, int]]]:
    """Return the naive schedule, after a comparison with the client's."""
    system = RandomSystem(client("chunked", 0, **spec), requests, POLICY)
    expected = simulate_llm_client(system.spec, requests, POLICY)
    _, tasks = run(system)
    assert list(tasks.finish_ps) == expected.finish_ps
    return schedule(expected)


def test_an_urgent_request_overtakes_those_that_wait() -> None:
    """One seat: request 2 arrives last and has its turn before request 1."""
    requests = [urgent(0, 2, 1, 1), urgent(1, 2, 1, 1), urgent(2, 2, 1, 0)]
    assert [tokens for _, _, tokens in both(requests, max_num_seqs=1)] == [{0: 2}, {2: 2}, {1: 2}]


def test_the_least_urgent_gives_its_blocks_wherever_it_stands() -> None:
    """Four blocks of 2 tokens: request 0 came first, and goes for request 1, which is more urgent."""
    requests = [urgent(0, 3, 3, 1), urgent(0, 3, 3, 0)]
    assert [tokens for _, _, tokens in both(requests, kv_blocks=4)] == [
        {0: 3, 1: 3},
        {0: 1, 1: 1},
        {1: 1},
        {0: 5},
    ]


def test_a_request_that_throws_itself_out_ends_the_pass() -> None:
    """In the third step request 0, the first to run, finds no block and goes; the plan is made again at once."""
    requests = [urgent(0, 3, 4, 2), urgent(1, 3, 3, 1), urgent(1, 1, 4, 0)]
    assert [tokens for _, _, tokens in both(requests, kv_blocks=5)] == [
        {0: 3},
        {0: 1, 2: 1, 1: 3},
        {2: 1, 1: 1},
        {2: 1, 1: 1},
        {2: 1, 0: 5},
        {0: 1},
    ]


WORDS = ["pipeline=llm", "slo=none", "workload=trace", "cost={kind: affine, fixed_us: 900, per_token_us: 10}"]
KEY = "cluster.pools.llm.scheduling_policy"


def traced(folder: Path, rows: list[dict[str, Any]], *words: str) -> hf.Result:
    path = folder / "trace.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return hf.simulate(hf.compile(hf.compose([*WORDS, f"workload.path={path}", *words])))


def test_without_priorities_it_is_first_come_first_served(tmp_path: Path) -> None:
    rng = random.Random(5)
    rows = [
        {"arrival_us": 700 * n, "input_tokens": rng.randint(1, 200), "output_tokens": rng.randint(1, 90)}
        for n in range(120)
    ]
    tight = "cluster.pools.llm.kv_blocks=60"
    ours = traced(tmp_path, rows, tight, f"{KEY}=priority")
    theirs = traced(tmp_path, rows, tight)
    assert ours.requests.equals(theirs.requests)
    assert ours.requests["preemptions"].sum() > 20
    assert "is as fcfs here, because no request has a priority" in str(ours.summary["warnings"])


def test_an_overloaded_client_serves_urgent_requests_first(tmp_path: Path) -> None:
    rows = [
        {"arrival_us": 300 * n, "input_tokens": 100, "output_tokens": 50, "priority": n % 2}
        for n in range(200)
    ]
    result = traced(tmp_path, rows, "cluster.pools.llm.kv_blocks=100", f"{KEY}=priority")
    urgent_s, other_s = (result.requests["e2e_s"].gather_every(2, at).mean() for at in (0, 1))
    assert urgent_s < 0.7 * other_s


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["engine=sglang"], "is a policy of vLLM's scheduler, not of sglang's"),
        (["cluster.pools.llm.packing=shortest_prompt"], "packing is shortest_prompt; expected packing=fcfs"),
        (["cluster.pools.llm.batching=mixed"], "is not modelled with batching=mixed"),
        (["cluster.pools.llm.preemption=swap"], "is not modelled with preemption=swap"),
        (["cluster.pools.llm.pipeline_parallel=2"], "is not modelled with pipeline_parallel=2"),
        (["cluster.pools.llm.speculative.head=eagle"], "is not modelled with speculative decoding"),
        (["cluster.pools.llm.offload.tiers=[host]"], "is not modelled with offload"),
        (["pipeline=kv_reuse"], "is not modelled for prompts that begin with the context of"),
        (["cluster.pools.llm.adapters={slots: 2, rank: 16}"], "is not modelled with adapters"),
    ],
)
def test_settings_that_it_does_not_go_with_are_errors_of_its_key(words: list[str], message: str) -> None:
    with pytest.raises(hf.HermesFlowError, match=f"{KEY}: .*{message}"):
        hf.compile(hf.compose([f"{KEY}=priority", *words]))
