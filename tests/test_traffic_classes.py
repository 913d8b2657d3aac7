"""Traffic classes and tenants through the public contract: bounds, figures and errors of their own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import hermes_flow as hf
from hermes_flow.planning.capacity import load_key
from hermes_flow.report.console import run_summary
from hermes_flow.report.pages.operations import operations_part
from hermes_flow.validation.invariants.check import check_invariants

FEW = ["pipeline=llm", "workload=synthetic", "workload.requests=150", "workload.rate_per_s=20"]
TWO = "workload.classes={chat: {share: 0.7, tenant: a}, batch: {share: 0.3, tenant: b, output_tokens: 300}}"


def simulated(*words: str) -> hf.Result:
    return hf.simulate(hf.compile(hf.compose([*FEW, *words])))


def test_classes_have_shares_and_lengths_of_their_own_and_leave_the_others_as_they_are() -> None:
    plain = hf.compile(hf.compose(FEW)).requests
    requests = hf.compile(hf.compose([*FEW, TWO])).requests
    assert requests.classes == ("chat", "batch")
    assert requests.traffic is not None
    batch = requests.traffic == 1
    assert abs(batch.mean() - 0.3) < 0.08
    assert (requests.output_tokens[batch] == 300).all()
    np.testing.assert_array_equal(requests.output_tokens[~batch], plain.output_tokens[~batch])
    np.testing.assert_array_equal(requests.arrival_ns, plain.arrival_ns)
    np.testing.assert_array_equal(requests.traffic, hf.compile(hf.compose([*FEW, TWO])).requests.traffic)


def test_classes_with_rates_come_each_at_its_own() -> None:
    classes = (
        "workload.classes={a: {rate_per_s: 30, input_tokens: 10}, b: {rate_per_s: 10, arrivals: constant}}"
    )
    requests = hf.compile(hf.compose([*FEW, "workload.rate_per_s=null", classes])).requests
    assert len(requests) == 150
    assert (np.diff(requests.arrival_ns) >= 0).all()
    assert requests.traffic is not None
    assert (requests.input_tokens[requests.traffic == 0] == 10).all()
    gaps = np.diff(requests.arrival_ns[requests.traffic == 1])
    assert (gaps == 10**8).all()
    assert abs((requests.traffic == 0).mean() - 0.75) < 0.08


def test_tables_and_summary_have_classes_and_tenants_only_where_there_are_any() -> None:
    plain, result = simulated(), simulated(TWO)
    assert {"class", "tenant"}.isdisjoint(plain.requests.columns)
    assert {"classes", "tenants", "fairness"}.isdisjoint(plain.summary)
    counts = result.requests.group_by("class").len().sort("class")["len"].to_list()
    found = result.summary["classes"]
    assert [found["batch"]["requests"]["submitted"], found["chat"]["requests"]["submitted"]] == counts
    own = result.requests.filter(pl.col("class") == "batch")
    assert found["batch"]["ttft_s"]["p99"] == pytest.approx(own["ttft_s"].quantile(0.99, "linear"))
    assert found["batch"]["throughput"]["answer_tokens_per_s"] > 0
    served = [result.summary["tenants"][name]["served"]["tokens"] for name in "ab"]
    jain = sum(served) ** 2 / (2 * sum(one * one for one in served))
    assert result.summary["fairness"]["jain_tokens"] == pytest.approx(jain)
    assert result.summary["fairness"]["jain_share"] == 1.0


def test_the_slo_of_a_class_replaces_that_of_the_workload() -> None:
    bounds = "slo={ttft_ms: {p99: 0.001}}"
    strict = simulated(bounds)
    assert strict.summary["slo"]["attainment"] == 0.0
    classes = (
        "workload.classes={chat: {share: 0.5, slo: {ttft_ms: {p99: 900000}}}, "
        "batch: {share: 0.5}, never: {share: 0, slo: {e2e_ms: {p50: 1}}}}"
    )
    result = simulated(bounds, classes)
    chat, batch = (result.summary["classes"][name] for name in ("chat", "batch"))
    assert (chat["slo"]["attainment"], chat["slo"]["met"]) == (1.0, True)
    assert (batch["slo"]["attainment"], batch["slo"]["met"]) == (0.0, None)
    assert list(chat["slo"]["bounds"]) == ["ttft_p99_s"]
    assert result.summary["slo"]["bounds"]["ttft_p99_s"]["met"] is False
    assert result.summary["slo"]["bounds"]["classes.chat.ttft_p99_s"]["met"] is True
    assert result.summary["slo"]["met"] is False
    within = result.requests.filter(pl.col("slo_met"))["class"].unique().to_list()
    assert within == ["chat"]


def test_a_class_takes_a_part_of_the_pipeline_and_asks_for_a_model() -> None:
    words = ["pipeline=mixed", "workload=synthetic", "workload.requests=60", "slo=none"]
    mixed = hf.compose(words)
    first, second = list(mixed.pipeline.parts)[:2]
    classes = (
        f"workload.classes={{a: {{share: 0.5, pipeline: {second}}}, b: {{share: 0.5, pipeline: {first}}}}}"
    )
    result = hf.simulate(hf.compile(hf.compose([*words, classes])))
    taken = result.requests.group_by("class").agg(pl.col("pipeline").unique()).sort("class")
    assert taken["pipeline"].to_list() == [[second], [first]]
    with pytest.raises(
        hf.CompileError, match=r"workload\.classes\.a\.pipeline: the pipeline has no part called 'no'"
    ):
        hf.compile(hf.compose([*words, "workload.classes={a: {share: 1, pipeline: no}}"]))


def test_priorities_that_nothing_goes_by_are_named() -> None:
    classes = "workload.classes={a: {share: 0.5, priority: 1}, b: {share: 0.5, priority: 0}}"
    unheeded = hf.compile(hf.compose([*FEW, classes])).warnings
    assert any("nothing goes by priorities" in text for text in unheeded)
    gateway = "cluster.admission={policy: limit, max_in_flight: 8, order: priority}"
    assert not hf.compile(hf.compose([*FEW, classes, gateway])).warnings
    result = simulated(classes, gateway)
    waits = [result.requests.filter(pl.col("class") == name)["ttft_s"].mean() for name in "ab"]
    assert waits[0] > 3 * waits[1]


def test_a_trace_names_classes_and_tenants(tmp_path: Path) -> None:
    rows = [
        {"arrival_s": 0.1 * n, "input_tokens": 20, "output_tokens": 5, "class": "xy"[n % 2], "tenant": "t"}
        for n in range(10)
    ]
    path = tmp_path / "trace.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    words = ["pipeline=llm", "workload=trace", f"workload.path={path}", "slo=none"]
    result = hf.simulate(hf.compile(hf.compose(words)))
    assert result.requests["class"].to_list() == ["x", "y"] * 5
    assert result.summary["tenants"]["t"]["requests"]["submitted"] == 10
    timed = "workload.classes={x: {timeout_s: 0.000001}, y: {}}"
    result = hf.simulate(hf.compile(hf.compose([*words, timed])))
    assert result.requests["status"].to_list() == ["timed_out", "completed"] * 5


def test_work_for_requests_that_were_given_up_is_counted() -> None:
    patient = simulated("slo=none")
    result = simulated("slo=none", "workload.timeout_s=0.9")
    counts, wasted = result.summary["requests"], result.summary["wasted"]
    assert counts["timed_out"] == counts["failed"] > 0
    assert 0 < wasted["requests"] <= counts["timed_out"]
    assert wasted["tokens"] > 0
    lost = result.requests.filter(pl.col("status") == "timed_out")
    assert wasted["energy_j"] == pytest.approx(lost["energy_j"].sum())
    assert result.clients["energy_j"].sum() < patient.clients["energy_j"].sum()
    shares = result.requests["energy_j"].sum()
    assert shares + result.summary["energy"]["idle_j"] == pytest.approx(result.summary["energy"]["total_j"])


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("workload.classes={a: {share: 0.4}, b: {share: 0.4}}", "do not add up to 1"),
        ("workload.classes={a: {rate_per_s: 1}, b: {share: 1}}", "workload.classes.b: expected rate_per_s"),
        ("workload.classes={a: {share: 1, arrivals: poisson}}", "workload.classes.a.arrivals: a class with"),
        ("workload.classes={a: {share: 1, tenants: x}}", "workload.classes.a.tenants: unknown key"),
        ("workload.classes={a: {share: 1, slo: {ttft_ms: {x99: 1}}}}", "is not a percentile"),
        (
            "workload.classes={a: {share: 1, pipeline: chat}}",
            "workload.classes.a.pipeline: one pipeline runs",
        ),
        ("workload.timeout_s=0", "workload.timeout_s: 0 is out of range"),
        ("cluster.admission=limit", "cluster.admission.max_in_flight: missing"),
        ("cluster.admission={policy: limit, max_in_flight: 0}", "max_in_flight: 0 is out of range"),
        ("cluster.admission={policy: limits, max_in_flight: 1}", "unknown admission policy 'limits'"),
        (
            "cluster.admission={policy: limit, max_in_flight: 1, on_full: hold, retry: {times: 1, backoff_s: 1}}",
            "cluster.admission.retry: nobody is turned away",
        ),
        (
            "cluster.admission={policy: limit, max_in_flight: 1, retry: {times: 1, backoff_s: 1}}",
            "cluster.admission.retry: a queue without max_queued is never full",
        ),
        (
            "cluster.admission={policy: limit, max_in_flight: 1, order: deadline}",
            "cluster.admission.order: no",
        ),
        (
            "cluster.admission={policy: weighted_fair, max_in_flight: 1}",
            "policy: weighted_fair needs",
        ),
    ],
)
def test_what_cannot_be_meant_is_an_error_with_its_key(word: str, message: str) -> None:
    with pytest.raises(hf.HermesFlowError) as error:
        hf.compile(hf.compose([*FEW, word]))
    assert message in str(error.value)


@pytest.mark.parametrize(
    "words",
    [
        ["pipeline=chat", "cluster=disaggregated"],
        ["pipeline=kv_reuse"],
        ["pipeline=chat", "engine=sglang"],
        ["pipeline=chat", "engine=tensorrt_llm"],
    ],
    ids=" ".join,
)
def test_overloaded_runs_with_a_gateway_and_impatient_classes_keep_all_invariants(
    words: list[str], tmp_path: Path
) -> None:
    gateway = "{policy: limit, max_in_flight: 40, max_queued: 10, shed: last, "
    gateway += "retry: {times: 1, backoff_s: 0.2, jitter: 0.5}}"
    classes = (
        "{x: {share: 0.5, timeout_s: 1, tenant: a}, y: {share: 0.5, slo: {ttft_ms: {p50: 800}}, tenant: b}}"
    )
    few = ["workload=synthetic", "workload.requests=80", "workload.rate_per_s=60", "workload.timeout_s=2.5"]
    operations = [
        f"cluster.admission={gateway}",
        f"workload.classes={classes}",
        "slo=chat",
        "output.steps=true",
    ]
    result = hf.simulate(hf.compile(hf.compose([*words, *few, *operations])))
    counts = result.summary["requests"]
    assert counts["submitted"] == counts["completed"] + counts["failed"]
    assert min(counts["completed"], counts["rejected"], counts["timed_out"]) > 0
    result.write(tmp_path / "run")
    assert not [
        violation for checked in check_invariants([tmp_path / "run"]) for violation in checked.violations
    ]


def test_the_terminal_and_the_page_name_classes_tenants_and_the_gateway() -> None:
    result = simulated(TWO, "cluster.admission={policy: weighted_fair, max_in_flight: 20, on_full: hold}")
    text = run_summary(result.summary, result.recording.program)
    assert max(map(len, text.splitlines())) <= 80
    for label in ("gateway ", "class chat ", "class batch ", "tenant a ", "tenant b ", "fairness "):
        assert f"\n{label}" in text
    assert "\nclass" not in run_summary(simulated().summary, result.recording.program)
    page = "".join(operations_part(result.summary))
    for words in ("class chat", "tenant b", "let in after"):
        assert words in page


def test_the_capacity_of_classes_with_rates_scales_all_of_them() -> None:
    classes = "workload.classes={a: {rate_per_s: 3}, b: {rate_per_s: 1}}"
    assert load_key(hf.compose([*FEW, classes])) == "workload.rate_scale"
    assert load_key(hf.compose(FEW)) == "workload.rate_per_s"


def test_the_console_says_which_bounds_are_those_of_the_other_classes() -> None:
    own = TWO.replace("tenant: a", "tenant: a, slo: {ttft_ms: {p99: 1}}")
    bounds = "slo={name: tight, ttft_ms: {p50: 1}}"
    result = simulated(own, bounds)
    text = run_summary(result.summary, result.program)
    assert "SLO missed    other classes: TTFT p50" in text
    assert "SLO missed    chat TTFT p99" in text
    plain = simulated(TWO, bounds)
    assert "other classes" not in run_summary(plain.summary, plain.program)
