"""Answers that go on elsewhere when their client fails: by hand, on every layout, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from compiler.configs import problems_of

import hermes_flow as hf
from hermes_flow.metrics.itl import inter_token_gaps
from hermes_flow.program.units import PS_PER_NS
from hermes_flow.validation.invariants.check import check_run

# Each step takes 10 ms, whatever is in it.
ONE = (
    "pipeline=llm",
    "workload=synthetic",
    "workload.requests=1",
    "workload.input_tokens=100",
    "workload.output_tokens=50",
    "cluster.pools.llm.count=2",
    "cluster.routing=round_robin",
    "cluster.pools.llm.lookahead=0",
    "cost={kind: affine, fixed_us: 10000, per_token_us: 0, per_context_us: 0}",
)
MANY = (
    "pipeline=llm",
    "workload=synthetic",
    "workload.requests=90",
    "workload.rate_per_s=20",
    "cost={kind: affine, fixed_us: 8000, per_token_us: 40, per_context_us: 0}",
)


def failures(pool: str = "llm", on_failure: str = "migrate", **keys: Any) -> str:
    text = json.dumps({"on_failure": on_failure, **keys})
    return re.sub(r'"(\w+)":', r"\1:", f"cluster.pools.{pool}.failures={text}")


def result(*overrides: str) -> hf.Result:
    return hf.simulate(hf.compile(hf.compose(list(overrides))))


@pytest.mark.parametrize(
    ("on_failure", "more_ms", "wasted"), [("migrate", 30 * 10, 100), ("retry", 50 * 10, 100 + 20)]
)
def test_an_answer_goes_on_from_its_tokens_and_only_its_kv_is_computed_anew(
    on_failure: str, more_ms: int, wasted: int
) -> None:
    at_ms = float(result(*ONE).requests["arrival_s"][0]) * 1000
    # The client fails in the middle of the step of the 21st token.
    event = {"at_s": (at_ms + 205) / 1000, "client": 0, "for_s": 100}
    found = result(*ONE, failures(on_failure=on_failure, events=[event]))
    assert float(found.requests["e2e_s"][0]) == pytest.approx((205 + more_ms) / 1000)
    assert found.summary["wasted"]["tokens"] == found.requests["wasted_tokens"][0] == wasted
    gaps = inter_token_gaps(found.recording)
    if on_failure == "migrate":
        assert float(found.requests["ttft_s"][0]) == pytest.approx(0.010)
        assert gaps.total == 49
        assert gaps.mean() * gaps.total == pytest.approx((505 - 10) * 1e6 * PS_PER_NS)
        assert int(gaps.last.max()) == pytest.approx(15e6 * PS_PER_NS, rel=1e-6)


@pytest.mark.parametrize("policy", ["chunked", "continuous", "mixed"])
def test_every_answer_is_complete_and_no_token_comes_twice(policy: str, tmp_path: Path) -> None:
    events = [{"at_s": at, "client": at % 3, "for_s": 2} for at in range(1, 6)]
    few = [
        f"cluster.pools.llm.batching={policy}",
        "cluster.pools.llm.count=3",
        "cluster.pools.llm.kv_blocks=900",
    ]
    found = result(*MANY, *few, failures(events=events))
    assert found.summary["requests"]["completed"] == 90
    assert found.summary["fleet"]["llm"]["retried_requests"] > 10
    assert inter_token_gaps(found.recording).total == int(found.requests["output_tokens"].sum()) - 90
    found.write(tmp_path)
    assert not check_run(tmp_path).violations


def test_documents_that_have_come_do_not_come_again(tmp_path: Path) -> None:
    events = [{"at_s": at, "client": at % 3, "for_s": 2} for at in range(2, 9)]
    load = ("pipeline=rag", "workload=synthetic", "workload.requests=50", "workload.rate_per_s=8")
    found = result(*load, "cluster.pools.llm.count=3", failures(events=events))
    assert found.summary["requests"]["completed"] == 50
    assert found.summary["fleet"]["llm"]["migrated_tasks"] > 5
    found.write(tmp_path)
    assert not check_run(tmp_path).violations


def test_a_decode_client_that_is_lost_needs_no_second_prefill_elsewhere(tmp_path: Path) -> None:
    events = [{"at_s": at, "client": at % 2, "for_s": 2} for at in range(1, 6)]
    layout = [*MANY, "cluster=disaggregated", "cluster.pools.decode.count=2"]
    found = {how: result(*layout, failures("decode", how, events=events)) for how in ("retry", "migrate")}
    steps = {
        how: one.clients.filter(one.clients["pool"] == "prefill")["tokens"].sum()
        for how, one in found.items()
    }
    assert steps["migrate"] == int(found["migrate"].requests["input_tokens"].sum()) < steps["retry"]
    assert found["migrate"].summary["fleet"]["decode"]["retried_requests"] > 10
    assert found["migrate"].summary["requests"]["completed"] == 90
    found["migrate"].write(tmp_path)
    assert not check_run(tmp_path).violations


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["engine=sglang"], "not modelled with the scheduler of sglang"),
        (["cluster.pools.llm.pipeline_parallel=2"], "not modelled with pipeline_parallel=2"),
        (["cluster.pools.llm.batching=static"], "not modelled with batching=static"),
    ],
)
def test_what_has_no_rule_for_it_is_refused(overrides: list[str], message: str) -> None:
    config = hf.compose([*MANY, *overrides, failures(events=[{"at_s": 1, "client": 0}])])
    (problem,) = problems_of(config)
    assert problem.startswith("cluster.pools.llm.failures.on_failure: migrate, but")
    assert message in problem


def test_lost_work_of_requests_that_fail_counts_as_wasted() -> None:
    event = {"at_s": 4, "client": 0, "for_s": 3}
    found = result(*MANY, "cluster.pools.llm.count=2", failures(on_failure="lose", events=[event]))
    lost = found.requests.filter(found.requests["status"] == "failed")
    assert lost.height > 0
    assert found.summary["wasted"]["tokens"] == int(lost["wasted_tokens"].sum()) > 0
    assert int(found.requests.filter(found.requests["status"] == "completed")["wasted_tokens"].sum()) == 0
    assert found.summary["wasted"]["service_s"] == pytest.approx(float(lost["wasted_s"].sum()))
    assert float((lost["wasted_s"] + lost["arrival_s"]).max()) <= 4  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("network", "kv_tokens"), [((), 108), (("network.node.gb_s=0.0001", "network.rack.gb_s=0.0001"), 0)]
)
def test_kv_that_arrives_within_the_notice_is_not_computed_again(
    network: tuple[str, ...], kv_tokens: int
) -> None:
    # A step takes 10 ms and 0.1 ms for each token: the first token comes after 20 ms, the others 10.1 ms apart.
    one = [*ONE[:-1], "cost={kind: affine, fixed_us: 10000, per_token_us: 100, per_context_us: 0}", *network]
    at_ms = float(result(*one).requests["arrival_s"][0]) * 1000
    # The notice begins at 105 ms, with 9 tokens and the KV of 100 + 8; the client fails with 19 tokens.
    event = {"at_s": (at_ms + 205) / 1000, "client": 0, "for_s": 100}
    found = result(*one, failures(events=[event], notice_s=0.1))
    resumed_ms = 205 + 10 + 0.1 * (100 + 19 - kv_tokens)
    assert float(found.requests["e2e_s"][0]) == pytest.approx((resumed_ms + 30 * 10.1) / 1000)
    assert found.requests["wasted_tokens"][0] == max(0, 100 - kv_tokens)
    moved = int(found.links["bytes"].sum())
    assert moved % 108 == 0
    assert moved // 108 == 2 * 131072  # of Llama-3.1 8B in bf16; over one link out and one in


def test_kv_moves_over_links_that_others_use_and_every_answer_is_complete(tmp_path: Path) -> None:
    events = [{"at_s": at, "client": at % 3, "for_s": 2} for at in range(1, 6)]
    layout = [
        *MANY,
        "cluster=disaggregated",
        "cluster.pools.decode.count=3",
        "network.rack.gb_s=2",
        "network.node.gb_s=2",
    ]
    found = result(*layout, failures("decode", events=events, notice_s=0.3))
    assert found.summary["requests"]["completed"] == 90
    assert found.summary["fleet"]["decode"]["migrated_tasks"] > 10
    assert inter_token_gaps(found.recording).total == int(found.requests["output_tokens"].sum()) - 90
    found.write(tmp_path)
    assert not check_run(tmp_path).violations


def test_a_link_without_a_rate_is_named_where_kv_has_to_move() -> None:
    nine = [*MANY, "cluster.pools.llm.count=9", "hardware=rtx4090"]  # on two nodes
    config = hf.compose([*nine, failures(events=[{"at_s": 1, "client": 0}], notice_s=1)])
    assert "moving KV to or from pool 'llm' needs it" in problems_of(config)[0]


SESSIONS = (
    *("pipeline=llm", "workload=sessions", "workload.sessions=14", "workload.seed=3", "slo=none"),
    *("cluster.pools.llm.kv_blocks=500", "cluster.pools.llm.count=2", "cluster.routing=session_affinity"),
    *("cluster.pools.llm.offload.tiers=[host,disk]", "cluster.pools.llm.offload.write=computed"),
)
# Each client fails now and then, and what it has in hand goes on on the other one.
LOST = [{"at_s": at, "client": at % 2, "for_s": 1} for at in range(20, 200, 7)]


@pytest.mark.parametrize("on_failure", ["retry", "migrate"])
def test_blocks_in_tiers_that_survive_are_found_where_the_tasks_go(on_failure: str, tmp_path: Path) -> None:
    gone, kept = (
        result(*SESSIONS, failures(on_failure=on_failure, events=LOST, tiers_survive=tiers))
        for tiers in ([], ["host", "disk"])
    )
    for found in (gone, kept):
        assert found.summary["requests"]["completed"] == found.summary["requests"]["submitted"]
    lost = kept.requests.filter(kept.requests["retries"] > 0)
    assert lost.height > 0
    assert int(lost["cached_tokens"].sum()) > 0
    network = kept.links.filter(kept.links["level"] == "node")
    assert int(network["bytes"].sum()) > 0
    kept.write(tmp_path)
    assert not check_run(tmp_path).violations


def test_a_client_that_comes_back_has_what_its_tiers_kept() -> None:
    back = [{"at_s": 150, "client": 0, "for_s": 1}]
    one = [*SESSIONS, "cluster.pools.llm.count=1"]
    gone, kept, never = (
        result(*one, *extra).summary["prefix"]["hit_tokens"]
        for extra in (
            [failures(on_failure="retry", events=back)],
            [failures(on_failure="retry", events=back, tiers_survive=["host", "disk"])],
            [],
        )
    )
    assert gone < kept <= never


def test_tiers_that_the_pool_has_not_are_named() -> None:
    config = hf.compose([*MANY, failures(events=LOST, tiers_survive=["disk"])])
    assert "cluster.pools.llm.failures.tiers_survive: disk is no tier" in problems_of(config)[0]
