"""Endpoints: limits per minute against a naive oracle, latencies, rejections, prices, and what they cannot do."""

from __future__ import annotations

import dataclasses
import functools
import json
from typing import Any

import numpy as np
import pytest
from compiler.configs import problems_of
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.token_buckets import earliest_ns, starts_ns

import hermes_flow as hf
from hermes_flow.config.schema import Config
from hermes_flow.errors import ConfigError
from hermes_flow.pools.client import Calls
from hermes_flow.pools.endpoint.client import EndpointClient, EndpointTasks
from hermes_flow.pools.endpoint.spec import EndpointClientSpec
from hermes_flow.pools.endpoint.token_bucket import TokenBucket
from hermes_flow.recording.recording import Recording

MS = 1_000_000
S = 1_000_000_000
PRICED = {"usd_per_million_input_tokens": 2.0, "usd_per_million_output_tokens": 10.0}


@functools.cache
def composed(*overrides: str) -> Config:
    return hf.compose(overrides)


def endpoint(name: str, base: Config, **changes: Any) -> Config:
    """The configuration with other keys of its endpoint ``name``."""
    pools = {**base.cluster.pools, name: dataclasses.replace(base.cluster.pools[name], **changes)}
    return dataclasses.replace(base, cluster=dataclasses.replace(base.cluster, pools=pools))


def lone(requests: int = 40, rate: float = 4.0, **changes: Any) -> Config:
    """Prefill and decode on one endpoint, 300 ms to the first token and 20 ms to each further one."""
    base = composed("pipeline=llm", "pool@cluster.pools.llm=endpoint", "workload=synthetic", "slo=none")
    lengths = {"distribution": "uniform", "min": 1, "max": 300}
    workload = dataclasses.replace(
        base.workload, requests=requests, rate_per_s=rate, input_tokens=lengths, output_tokens=lengths
    )
    given = {"ttft_ms": 300.0, "tpot_ms": 20.0, **changes}
    return endpoint("llm", dataclasses.replace(base, workload=workload), **given)


def calls(recording: Recording, pool: str) -> list[tuple[int, int, int, int, int, int]]:
    """The calls of a pool in the order in which they came: (ready, request, start, first, finish, tokens)."""
    found = []
    for op, record in zip(recording.program.ops, recording.ops, strict=True):
        if recording.program.pools[op.pool].name != pool:
            continue
        assert op.llm is not None
        assert record.first_ns is not None
        tokens = op.llm.prompt + op.llm.output
        columns = (record.ready_ns, record.start_ns, record.first_ns, record.finish_ns, tokens)
        for request in np.flatnonzero(record.ready_ns >= 0).tolist():
            ready, start, first, finish, size = (int(column[request]) for column in columns)
            found.append((ready, request, start, first, finish, size))
    return sorted(found)


def test_a_full_bucket_gives_a_minute_of_burst_and_then_the_rate() -> None:
    bucket = TokenBucket(60)
    bucket.take(60, 0)
    assert bucket.holds_ns(1, 0) == 1 * S
    assert bucket.holds_ns(60, 0) == 60 * S
    bucket.take(1, 90 * S)  # full again at 60 s, and no fuller
    assert bucket.holds_ns(60, 90 * S) == 91 * S


@given(
    st.integers(1, 50),
    st.lists(st.tuples(st.integers(0, 40 * S), st.integers(1, 50)), min_size=1, max_size=30),
)
def test_a_bucket_is_exact_to_the_nanosecond(per_minute: int, asked: list[tuple[int, int]]) -> None:
    bucket, begun, now = TokenBucket(per_minute), list[tuple[int, int]](), 0
    for gap, units in asked:
        units = min(units, per_minute)
        at = bucket.holds_ns(units, now + gap)
        assert at == earliest_ns(begun, units, per_minute, now + gap)
        bucket.take(units, at)
        begun.append((at, units))
        now = at


@settings(max_examples=60)
@given(
    requests_per_minute=st.none() | st.integers(1, 400),
    tokens_per_minute=st.none() | st.integers(600, 100_000),
    rejects=st.booleans(),
    rate=st.sampled_from([0.5, 4.0, 60.0]),
    seed=st.integers(0, 1000),
)
def test_calls_begin_as_the_naive_bucket_lets_them(
    requests_per_minute: int | None, tokens_per_minute: int | None, rejects: bool, rate: float, seed: int
) -> None:
    limited = requests_per_minute is not None or tokens_per_minute is not None
    config = lone(
        rate=rate,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        on_limit="reject" if rejects and limited else "queue",
    )
    config = dataclasses.replace(config, workload=dataclasses.replace(config.workload, seed=seed))
    result = hf.simulate(hf.compile(config))
    found = calls(result.recording, "llm")
    expected = starts_ns(
        [ready for ready, *_ in found],
        [size for *_, size in found],
        requests_per_minute,
        tokens_per_minute,
        rejects and limited,
    )
    output = result.program.requests.output_tokens
    failed = []
    for (_, request, start, first, finish, _), begins in zip(found, expected, strict=True):
        if begins is None:
            failed.append(request)
            assert (start, first, finish) == (-1, -1, -1)
        else:
            assert start == begins
            assert first == start + 300 * MS
            assert finish == first + (int(output[request]) - 1) * 20 * MS
    assert np.flatnonzero(result.recording.status).tolist() == sorted(failed)
    assert result.summary["endpoints"]["llm"]["rejected"] == len(failed)
    assert result.summary["requests"]["failed"] == len(failed)


def test_tables_and_summary_have_latency_tokens_and_cost() -> None:
    result = hf.simulate(hf.compile(lone(requests=30, **PRICED)))
    requests, client = result.requests, result.clients.filter(result.clients["pool"] == "llm")
    several = requests.filter(requests["output_tokens"] > 1)
    assert requests["ttft_s"].to_list() == pytest.approx([0.3] * 30)
    assert several["tpot_s"].to_list() == pytest.approx([0.02] * len(several))
    read, written = int(requests["input_tokens"].sum()), int(requests["output_tokens"].sum())
    usd = (2.0 * read + 10.0 * written) / 1e6
    assert client["tokens"].to_list() == [read + written]
    assert client["cost_usd"].to_list() == pytest.approx([usd])
    assert client["hardware"].to_list() == [None]
    assert client["model"].to_list() == ["endpoint"]
    summary = result.summary
    assert summary["itl_s"]["p99"] == pytest.approx(0.02)
    assert summary["endpoints"]["llm"] == {
        "calls": 30,
        "rejected": 0,
        "waited": 0,
        "wait_mean_s": 0.0,
        "input_tokens": read,
        "output_tokens": written,
        "usd": pytest.approx(usd),
    }
    assert summary["cost"]["usd_by_use"] == pytest.approx(usd)
    host = result.clients.filter(result.clients["pool"] == "host")["cost_usd"].to_list()
    assert host == [None]  # the default host has no price, and counts as free
    assert summary["cost"]["usd_per_million_output_tokens"] == pytest.approx(1e6 * usd / written)
    assert summary["energy"]["unmetered"] == ["llm"]
    assert json.dumps(summary)


def test_without_prices_the_cost_is_not_known() -> None:
    cost = hf.simulate(hf.compile(lone(requests=5))).summary["cost"]
    assert cost["usd_per_hour"] is None
    assert cost["usd_by_use"] is None
    assert "llm" in cost["unpriced"]


def test_drawn_latencies_do_not_depend_on_limits_or_on_each_other() -> None:
    drawn = {"distribution": "lognormal", "median": 200.0, "p99": 900.0}
    waits: dict[str, list[list[int]]] = {}
    for name, changes in {
        "free": {"ttft_ms": drawn, "tpot_ms": drawn},
        "limited": {"ttft_ms": drawn, "tpot_ms": drawn, "requests_per_minute": 20},
        "even": {"ttft_ms": drawn, "tpot_ms": 20.0},
    }.items():
        found = calls(hf.simulate(hf.compile(lone(**changes))).recording, "llm")
        waits[name] = [[first - start for _, _, start, first, _, _ in found]]
        waits[name].append([finish - first for _, _, _, first, finish, _ in found])
    assert waits["free"] == waits["limited"]
    assert waits["free"][0] == waits["even"][0]
    assert waits["free"][1] != waits["even"][1]
    assert len(set(waits["free"][0])) > 30
    again = calls(hf.simulate(hf.compile(lone(ttft_ms=drawn))).recording, "llm")
    assert [first - start for _, _, start, first, _, _ in again] == waits["free"][0]


def test_a_cascade_asks_a_limited_endpoint_for_hard_requests() -> None:
    base = composed(
        *("pipeline=cascade", "cluster=two_models", "pool@cluster.pools.large=endpoint", "slo=none"),
        *("workload=synthetic", "workload.requests=300", "workload.rate_per_s=8", "model=llama3_8b"),
    )
    limits = {"requests_per_minute": 30, "tokens_per_minute": 20_000}
    config = endpoint("large", base, ttft_ms=250.0, tpot_ms=12.5, **limits, **PRICED)
    result = hf.simulate(hf.compile(config))
    found = calls(result.recording, "large")
    assert 60 < len(found) < 120  # 30 % of 300
    starts = starts_ns([ready for ready, *_ in found], [size for *_, size in found], 30, 20_000, False)
    assert [start for _, _, start, _, _, _ in found] == starts
    assert any(start > ready for ready, _, start, _, _, _ in found)
    asked = {request for _, request, *_ in found}
    models = result.requests["model"].to_list()
    assert {request for request, model in enumerate(models) if model == "endpoint"} == asked
    first = {request: first for _, request, _, first, _, _ in found}
    for request, ttft_s in enumerate(result.requests["ttft_s"].to_list()):
        if request in asked:  # the answer that the user reads is the endpoint's
            assert ttft_s == pytest.approx((first[request] - result.recording.arrival_ns[request]) / S)
    use = result.summary["endpoints"]["large"]
    assert use["calls"] == len(found)
    assert use["usd"] == pytest.approx((2.0 * use["input_tokens"] + 10.0 * use["output_tokens"]) / 1e6)
    kinds = result.stages.filter(result.stages["pool"] == "large")["kind"].unique().to_list()
    assert sorted(kinds) == ["decode", "prefill"]


def test_a_rejected_request_fails_with_its_reason_and_ends_its_session() -> None:
    base = composed(
        "pool@cluster.pools.llm=endpoint", "workload=sessions", "workload.sessions=60", "slo=none"
    )
    config = endpoint("llm", base, ttft_ms=50.0, tpot_ms=1.0, requests_per_minute=12, on_limit="reject")
    result = hf.simulate(hf.compile(config))
    failures = result.recording.failures
    rejected = {r for r, reason in failures.items() if "requests_per_minute" in reason}
    assert rejected
    assert {failures[r] for r in rejected} == {"rejected by endpoint llm: above its requests_per_minute"}
    before = result.program.requests.previous
    assert before is not None
    for request, turn in enumerate(before.tolist()):
        if turn in failures:
            assert failures[request] == "after a rejected turn of the same session"
    assert set(failures) == set(np.flatnonzero(result.recording.status).tolist())
    assert result.requests.filter(result.requests["status"] == "failed")["finish_s"].null_count() == len(
        failures
    )
    assert any("rejected by endpoint llm" in warning for warning in result.summary["warnings"])


def test_a_closed_loop_goes_on_after_rejections() -> None:
    base = composed(
        "pool@cluster.pools.llm=endpoint", "workload=closed_loop", "workload.requests=80", "slo=none"
    )
    config = endpoint("llm", base, tokens_per_minute=30_000, on_limit="reject")
    result = hf.simulate(hf.compile(config))
    failed = result.summary["requests"]["failed"]
    assert 0 < failed < 80
    assert result.summary["requests"]["completed"] == 80 - failed
    assert (result.recording.arrival_ns >= 0).all()


def test_a_request_of_more_tokens_than_a_minute_allows_is_rejected_by_the_compiler() -> None:
    program = hf.compile(lone(tokens_per_minute=400))
    sizes = program.requests.input_tokens + program.requests.output_tokens
    assert sorted(program.rejected) == np.flatnonzero(sizes > 400).tolist()
    assert set(program.rejected.values()) == {"larger than the tokens_per_minute of llm (400 tokens)"}


def test_a_guard_reads_the_answer_of_an_endpoint_while_it_is_written() -> None:
    base = composed(
        *("pipeline=chat_guarded_streaming", "pool@cluster.pools.llm=endpoint", "workload=synthetic"),
        *("workload.requests=20", "slo=none"),
    )
    result = hf.simulate(hf.compile(endpoint("llm", base, ttft_ms=100.0, tpot_ms=10.0)))
    (decode,) = [op for op in result.program.ops if "decode" in op.stage_kinds]
    number = result.program.ops.index(decode)
    first = result.recording.ops[number].first_ns
    assert first is not None
    checked = 0
    for op, record in zip(result.program.ops, result.recording.ops, strict=True):
        if op.at_token is None:
            continue
        for request in np.flatnonzero(record.ready_ns >= 0).tolist():
            written = first[request] + (int(op.at_token[request]) - 1) * 10 * MS
            assert record.ready_ns[request] == written
            checked += 1
    assert checked > 20


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"on_limit": "reject"}, "on_limit: 'reject', but there is no limit"),
        ({"requests_per_minute": 0}, "requests_per_minute: 0 is out of range"),
        ({"tokens_per_minute": -5}, "tokens_per_minute: -5 is out of range"),
        ({"ttft_ms": -1.0}, "ttft_ms: -1 is out of range"),
        ({"tpot_ms": {"distribution": "lognormal", "mean": 3}}, "tpot_ms: has mean; expected mean and cv"),
        ({"usd_per_million_input_tokens": -2.0}, "usd_per_million_input_tokens: -2 is out of range"),
        ({"model": {}}, "model.name: expected the name of a model"),
        ({"model": {"name": "x", "layer": 3}}, "model.layer: unknown key; did you mean 'layers'?"),
        ({"count": 0}, "count: 0 is out of range"),
    ],
)
def test_a_wrong_figure_is_refused(changes: dict[str, Any], problem: str) -> None:
    (found,) = problems_of(lone(**changes))
    assert found.startswith(f"cluster.pools.llm.{problem}")


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("prefix_cache=true", "prefix_cache: a pool of kind 'endpoint' has none; the provider keeps the KV"),
        ("hardware.power_w=3", "hardware: a pool of kind 'endpoint' has none; the provider runs the model"),
        ("batching=static", "batching: a pool of kind 'endpoint' has none; the provider schedules the calls"),
    ],
)
def test_what_an_endpoint_lacks_is_refused_by_name(key: str, problem: str) -> None:
    for sign in ("", "+"):
        with pytest.raises(ConfigError) as caught:
            hf.compose(["pool@cluster.pools.llm=endpoint", f"{sign}cluster.pools.llm.{key}"])
        assert str(caught.value).startswith(f"cluster.pools.llm.{problem}")


def test_no_kv_moves_to_or_from_an_endpoint() -> None:
    (moved,) = problems_of(
        composed(
            "cluster=disaggregated",
            "pool@cluster.pools.decode=endpoint",
            "cluster.pools.decode.serves=[decode]",
        )
    )
    assert moved.startswith(
        "cluster.pools.decode.serves: pool 'decode' would decode what 'prefill' has prefilled, and no KV moves to or "
        "from an endpoint"
    )
    (loaded,) = problems_of(composed("pipeline=kv_reuse", "pool@cluster.pools.llm=endpoint"))
    assert "pool 'llm' is an endpoint, into which the KV that 'recall' retrieves cannot be loaded" in loaded


def test_guards_are_calls_of_one_token() -> None:
    base = composed(
        *("pipeline=chat_guarded", "pool@cluster.pools.guard=endpoint", "cluster.pools.guard.serves=[guard]"),
        *("workload=synthetic", "workload.requests=30", "slo=none"),
    )
    result = hf.simulate(hf.compile(endpoint("guard", base, ttft_ms=80.0, tpot_ms=15.0, **PRICED)))
    guards = result.stages.filter(result.stages["pool"] == "guard")
    assert set(guards["kind"].unique()) == {"guard"}
    assert guards["service_s"].to_list() == pytest.approx([0.08] * len(guards))
    use = result.summary["endpoints"]["guard"]
    assert use["calls"] == use["output_tokens"] == len(guards)
    assert use["input_tokens"] == guards["tokens"].sum()


def test_branches_are_calls_that_each_pay_for_their_prompt() -> None:
    base = composed(
        *("pipeline=reasoning_multi", "pool@cluster.pools.llm=endpoint", "workload=synthetic"),
        *("workload.requests=10", "slo=none", "pipeline.stages.decode.branches=4"),
        "pipeline.stages.decode.vote=3",
    )
    result = hf.simulate(hf.compile(endpoint("llm", base, ttft_ms=50.0, tpot_ms=5.0)))
    use = result.summary["endpoints"]["llm"]
    assert use["calls"] == 40
    assert use["input_tokens"] == 4 * int(result.requests["input_tokens"].sum())


def test_a_request_that_fails_in_one_branch_begins_no_more_tasks() -> None:
    base = composed(
        *("pipeline=reasoning_multi", "pool@cluster.pools.llm=endpoint", "workload=synthetic"),
        *("workload.requests=30", "slo=none", "pipeline.stages.decode.branches=4", "workload.rate_per_s=2"),
        "pipeline.stages.decode.vote=4",
    )
    config = endpoint("llm", base, requests_per_minute=26, on_limit="reject")
    result = hf.simulate(hf.compile(config))
    failed = set(result.recording.failures)
    assert 0 < len(failed) < 30
    last = [n for n, op in enumerate(result.program.ops) if "detokenize" in op.stage_kinds]
    assert last
    for number in last:
        assert failed == set(np.flatnonzero(result.recording.ops[number].client < 0).tolist())
    done = result.requests.filter(result.requests["status"] == "completed")
    assert done["finish_s"].null_count() == 0


def test_routers_see_the_calls_in_hand() -> None:
    count = 60
    program = hf.compile(lone(requests=count, rate=20.0, requests_per_minute=30))
    spec = program.pools[[pool.name for pool in program.pools].index("llm")].client
    assert isinstance(spec, EndpointClientSpec)
    prompt, output = program.requests.input_tokens.tolist(), program.requests.output_tokens.tolist()
    tasks = EndpointTasks(prompt, output, [300 * MS] * count, [20 * MS] * count)
    ended: list[int] = []
    called = Calls(
        done=lambda task, now_ns: ended.append(task),
        begun=lambda task, now_ns: None,
        failed=lambda task, now_ns, reason: None,
        notify=True,
    )
    client = EndpointClient(0, spec, tasks, called, "llm")
    arrivals = program.requests.arrival_ns.tolist()
    for task, now in enumerate(arrivals):
        while client.next_ns() < now:
            client.fire(client.next_ns())
        under_way = [t for t in range(task) if tasks.finish_ns[t] >= now]
        assert client.outstanding(now) == len(under_way)
        assert client.queued_tokens(now) == sum(
            prompt[t] if tasks.start_ns[t] > now else 1 for t in under_way
        )
        client.submit(task, now)
    assert ended
    assert any(tasks.start_ns[t] > arrivals[t] for t in range(count))


def test_routers_share_calls_among_accounts() -> None:
    config = lone(requests=60, rate=30.0, count=3, requests_per_minute=12)
    result = hf.simulate(hf.compile(config))
    own = result.clients.filter(result.clients["pool"] == "llm")
    assert own["tokens"].min() > 0
    one = hf.simulate(hf.compile(lone(requests=60, rate=30.0, requests_per_minute=12)))
    assert result.summary["e2e_s"]["p99"] < one.summary["e2e_s"]["p99"]
    with_prompts = dataclasses.replace(
        config, cluster=dataclasses.replace(config.cluster, routing="least_kv")
    )
    (problem,) = problems_of(with_prompts)
    assert "are of kind 'endpoint'" in problem


def test_the_program_says_what_an_endpoint_allows_and_charges() -> None:
    text = str(hf.compile(lone(requests_per_minute=100, on_limit="reject", **PRICED)))
    words = " ".join(text.split())
    assert "llm: 1 × endpoint serving endpoint" in words
    assert "at most 100 calls a minute on each account; calls above that are rejected" in words
    assert "first token after 300 ms, each further one after 20 ms" in words
    assert "price: $2 per million input tokens, $10 per million output tokens" in words
    assert "power: not known" in words
