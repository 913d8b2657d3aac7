"""Users who give up and try again: equal to a naive client, by hand, behind a gateway, and what is refused."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from compiler.configs import problems_of
from oracles.llm_client import OracleRequest, simulate_llm_client
from tries import tries

import hermes_flow as hf
from hermes_flow.machine.run import run
from hermes_flow.program.admission import RetryRule
from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.units import PS_PER_NS
from hermes_flow.program.work import Generate
from hermes_flow.recording.recording import COMPLETED, TIMED_OUT
from hermes_flow.validation.invariants.check import check_run

MS = 1_000_000
COUNT = 18
SLOW = (
    "pipeline=llm",
    "workload=synthetic",
    "workload.requests=45",
    "workload.rate_per_s=12",
    "workload.timeout_s=2",
    "cluster.pools.llm.max_num_seqs=8",
    "cost={kind: affine, fixed_us: 8000, per_token_us: 40, per_context_us: 0}",
)


GATEWAY = (
    "cluster.admission={policy: limit, max_in_flight: 6, max_queued: 4, retry: {times: 1, backoff_s: 0.3}}"
)


def result(*overrides: str) -> hf.Result:
    return hf.simulate(hf.compile(hf.compose(list(overrides))))


@cache
def base() -> hf.Program:
    cost = "cost={kind: affine, fixed_us: 4000, per_token_us: 20, per_context_us: 0.1}"
    return hf.compile(hf.compose(["pipeline=llm", "workload=synthetic", f"workload.requests={COUNT}", cost]))


class NaiveTries:
    """Requests of users who try again on one naive client, which is simulated anew for each further try."""

    def __init__(
        self, spec: LLMClientSpec, arrivals: list[int], sizes: list[tuple[int, int]], rule: RetryRule
    ) -> None:
        self.spec, self.sizes, self.rule = spec, sizes, rule
        self.tries = [[at] for at in arrivals]  # by request, when each try comes

    def run(self, timeouts: list[int]) -> list[tuple[int, int]]:
        """Return the start and the end of the last try of each request; −1 where it is given up."""
        while True:
            order = sorted((at, request) for request, own in enumerate(self.tries) for at in own)
            asked = [
                OracleRequest(at, *self.sizes[request], withdrawn_ns=at + timeouts[request])
                for at, request in order
            ]
            found = simulate_llm_client(self.spec, asked)
            times = [ps // PS_PER_NS for ps in found.finish_ps]
            missed: list[tuple[int, int]] = []
            for (at, request), finish in zip(order, times, strict=True):
                gave_up = at + timeouts[request]
                in_time = 0 <= finish <= gave_up
                number = self.tries[request].index(at)
                if not in_time and number == len(self.tries[request]) - 1 and number < self.rule.times:
                    missed.append((gave_up, request))
            if not missed:
                break
            gave_up, request = min(missed)  # the later ones may be other ones, once this one is known
            wait = round(self.rule.backoff_ns * self.rule.factor ** (len(self.tries[request]) - 1))
            self.tries[request].append(gave_up + wait)
        ends = [(-1, -1)] * len(self.sizes)
        for (at, request), start, finish in zip(order, found.start_ps, times, strict=True):
            if at == self.tries[request][-1]:
                ends[request] = (
                    (start // PS_PER_NS, finish) if 0 <= finish <= at + timeouts[request] else (-1, -1)
                )
        return ends


@pytest.mark.parametrize("seed", range(tries(3, 300)))
def test_tries_end_as_those_of_the_naive_client(seed: int) -> None:
    rng = random.Random(seed)
    program = base()
    pool, work = program.ops[0].pool, program.ops[0].work
    assert isinstance(work, Generate)
    sizes = [(rng.randint(1, 120), rng.randint(1, 25)) for _ in range(COUNT)]
    arrivals = sorted(rng.randint(0, 600) * MS for _ in range(COUNT))
    timeouts = [rng.choice([30, 90, 200, 700]) * MS + rng.randint(0, 999) for _ in range(COUNT)]
    columns = {"prompt": np.array([one for one, _ in sizes]), "output": np.array([one for _, one in sizes])}
    requests = replace(program.requests, arrival_ns=np.array(arrivals), timeout_ns=np.array(timeouts))
    client = program.pools[pool].client
    assert isinstance(client, LLMClientSpec)
    blocks = rng.choice([2000, 24])
    spec = replace(client, max_num_seqs=rng.choice([2, 4]), lookahead=seed % 2, kv_blocks=blocks)
    rule = RetryRule(rng.choice([1, 3]), rng.choice([60, 250]) * MS, rng.choice([1.0, 2.0]), 0.0)
    pools = tuple(replace(one, client=spec) if one is program.pools[pool] else one for one in program.pools)
    ops = (replace(program.ops[0], work=replace(work, **columns)),)
    recording = run(replace(program, requests=requests, pools=pools, ops=ops, retries=rule))

    naive = NaiveTries(spec, arrivals, sizes, rule)
    expected = naive.run(timeouts)
    op, done = recording.ops[0], recording.status == COMPLETED
    assert [one != (-1, -1) for one in expected] == done.tolist()
    for request in np.flatnonzero(done).tolist():
        assert (int(op.start_ns[request]), int(op.finish_ns[request])) == expected[request]
    counts = [len(own) - 1 + (not done[request]) for request, own in enumerate(naive.tries)]
    assert {request: count for request, count in enumerate(counts) if count} == recording.given_up


def test_a_service_that_takes_longer_than_users_wait_does_all_its_work_in_vain() -> None:
    """One request at a time, 1 s each, users wait 0.8 s and come three times: nobody is ever answered."""
    one = [
        "workload.requests=1",
        "workload.input_tokens=1",
        "workload.output_tokens=100",
        "workload.timeout_s=0.8",
    ]
    cost = "cost={kind: affine, fixed_us: 10000, per_token_us: 0, per_context_us: 0}"
    found = result(*SLOW, *one, cost, "workload.retry={times: 2, backoff_s: 0.5}")
    (row,) = found.requests.to_dicts()
    assert row["status"] == "timed_out"
    assert row["given_up"] == 3
    # A step that ends as the user gives up is over by then, and the one after it is planned.
    assert row["wasted_tokens"] == pytest.approx(3 * 81, abs=6)
    assert row["wasted_s"] == pytest.approx(3 * 0.8, abs=0.06)
    end_s = 3 * 0.8 + 0.5 + 1.0
    assert found.recording.end_ns / 1e9 - row["arrival_s"] == pytest.approx(end_s, abs=0.03)
    assert found.summary["user_retries"] == {"requests": 1, "times": 3, "completed": 0}
    assert found.summary["requests"]["timed_out"] == 1
    assert "its user gave up after 0.8 s, 3 times" in found.summary["warnings"][0]


def test_a_new_try_waits_until_the_engine_has_let_the_last_one_go() -> None:
    """A step takes a second. The user gives up at 0.5 s and tries again at once; the step goes on to its end."""
    one = [
        "workload.requests=1",
        "workload.input_tokens=1",
        "workload.output_tokens=1",
        "workload.timeout_s=1.6",
    ]
    cost = "cost={kind: affine, fixed_us: 1000000, per_token_us: 0, per_context_us: 0}"
    slow = ["workload.timeout_s=0.5", "cluster.pools.llm.lookahead=0"]
    found = result(*SLOW, *one, *slow, cost, "workload.retry={times: 1, backoff_s: 0}")
    assert found.requests["status"].to_list() == ["timed_out"]
    again_s = found.recording.end_ns / 1e9 - float(found.requests["arrival_s"][0])
    assert again_s == pytest.approx(
        2.0, abs=1e-6
    )  # the second try begins at 1 s, and its step ends a second later


@pytest.mark.parametrize(
    "layout",
    [
        (),
        ("engine=sglang",),
        ("engine=tensorrt_llm",),
        ("pipeline=chat", "cluster.pools.llm.prefix_cache=true"),
        ("cluster=disaggregated", "cluster.kv_transfer=layerwise"),
        (
            "cluster.pools.llm.count=2",
            "cluster.pools.llm.failures={events: [{at_s: 3, client: 0, for_s: 2}]}",
        ),
        (GATEWAY,),
        ("cluster.pools.llm.failures={on_failure: migrate, events: [{at_s: 3, client: 0, for_s: 3}]}",),
        ("pipeline=chat_guarded",),
        ("workload=sessions", "pipeline=chat"),
        ("pool@cluster.pools.llm=endpoint", "cluster.pools.llm.tokens_per_minute=60000"),
        ("pipeline=routed_by_load", "cluster=two_models", "pipeline.routes.model.large=3"),
    ],
)
def test_nothing_is_lost_and_nothing_comes_twice(layout: tuple[str, ...], tmp_path: Path) -> None:
    keys = list(SLOW)
    if "endpoint" in str(layout) or "two_models" in str(layout):
        keys = [key for key in keys if "cluster.pools.llm" not in key and not key.startswith("pipeline=")]
        keys += ["workload.timeout_s=1.5"] + ["pipeline=llm"] * ("endpoint" in str(layout))
    if "workload=sessions" in layout:
        keys = [key for key in keys if not key.startswith(("workload=", "workload.r"))]
        keys += ["workload.sessions=20"]
    seats = [key for key in keys if not ("disaggregated" in str(layout) and "cluster.pools.llm" in key)]
    if "cluster=disaggregated" in layout:
        seats += ["cluster.pools.decode.max_num_seqs=6"]
    found = result(*seats, *layout, "workload.retry={times: 3, backoff_s: 0.2, jitter: 0.5}")
    counts, again = found.summary["requests"], found.summary["user_retries"]
    assert again["requests"] > 2
    ways = ("completed", "failed", "timed_out", "rejected")
    ended = sum(found.requests["status"].is_in([name]).sum() for name in ways)
    assert ended == counts["submitted"]
    completed = found.recording.status == COMPLETED
    assert bool((found.recording.finish_ns[completed] >= 0).all())
    assert int(found.requests["given_up"].sum()) == again["times"]
    assert found.summary["wasted"]["tokens"] == int(found.requests["wasted_tokens"].sum()) > 0
    found.write(tmp_path)
    assert not check_run(tmp_path).violations
    gave_up = found.recording.status == TIMED_OUT
    assert all(found.recording.given_up[request] >= 1 for request in np.flatnonzero(gave_up).tolist())


def test_each_try_at_an_endpoint_is_paid_for_as_far_as_it_was_written() -> None:
    """The first token comes after 400 ms, each further one after 20 ms; the user waits a second, and comes again."""
    load = [
        "workload=synthetic",
        "workload.requests=1",
        "workload.input_tokens=500",
        "workload.output_tokens=100",
    ]
    endpoint = [
        "pool@cluster.pools.llm=endpoint",
        "cluster.pools.llm.ttft_ms=400",
        "cluster.pools.llm.tpot_ms=20",
    ]
    prices = [f"cluster.pools.llm.usd_per_million_{what}_tokens=1" for what in ("input", "output")]
    found = result(
        "pipeline=llm",
        *load,
        *endpoint,
        *prices,
        "workload.timeout_s=1",
        "workload.retry={times: 1, backoff_s: 1}",
    )
    use = found.summary["endpoints"]["llm"]
    # Both tries have 1 + 600 / 20 tokens of the answer as they are given up.
    assert (use["calls"], use["input_tokens"], use["output_tokens"]) == (2, 1000, 62)
    assert use["usd"] == pytest.approx(1062e-6)
    assert found.summary["wasted"]["tokens"] == 1062
    patient = result(
        "pipeline=llm", *load, *endpoint, "workload.timeout_s=2.5", "workload.retry={times: 1, backoff_s: 1}"
    )
    assert patient.requests["status"].to_list() == ["completed"]


def test_a_route_by_load_is_decided_anew_for_a_new_try() -> None:
    """The large model takes one request at a time; who comes meanwhile goes to the small one, also as a new try."""
    load = [
        "workload=synthetic",
        "workload.requests=40",
        "workload.rate_per_s=4",
        "workload.output_tokens=300",
    ]
    routed = ["pipeline=routed_by_load", "cluster=two_models", "pipeline.routes.model.large=1"]
    found = result(*load, *routed, "workload.timeout_s=2", "workload.retry={times: 2, backoff_s: 0.1}")
    rows = found.stages.filter(found.stages["stage"].is_in(["large", "small"]))
    assert rows["request"].n_unique() == len(rows)  # each request is served by one of them
    large = rows.filter(rows["stage"] == "large").sort("start_s")
    late = large["start_s"].to_list()[1:]
    assert all(
        start >= end for end, start in zip(large["finish_s"].to_list(), late, strict=False) if end is not None
    )
    assert found.summary["user_retries"]["times"] > 5


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["workload.timeout_s=null"], "workload.retry: nobody gives up"),
        (["pipeline=kv_reuse"], "tasks of kind 'memory'"),
        (["pipeline=chat_guarded_streaming"], "is read while it is written"),
    ],
)
def test_what_cannot_begin_anew_is_refused(overrides: list[str], message: str) -> None:
    config = hf.compose([*SLOW, *overrides, "workload.retry={times: 1, backoff_s: 1}"])
    assert any(message in problem for problem in problems_of(config))
