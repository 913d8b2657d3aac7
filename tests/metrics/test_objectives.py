"""An SLO bounds percentiles of any metric, stage or pipeline, and the share of requests within several limits."""

from __future__ import annotations

import numpy as np
import pytest

import hermes_flow as hf

FEW = ["workload.requests=60"]


def run_with(slo: str, *overrides: str) -> hf.Result:
    return hf.simulate(hf.compile(hf.compose([*FEW, *overrides, f"slo={{name: own, {slo}}}"])))


def test_a_stage_is_bounded_with_its_waits_over_all_its_turns() -> None:
    result = run_with("stages: {act: {p75: 1500}}", "pipeline=agent", "workload.requests=30")
    bound = result.summary["slo"]["bounds"]["stages.act_p75_s"]
    own = result.stages.filter(result.stages["stage"] == "act")
    time = (own["finish_s"] - own["ready_s"]).to_numpy()
    per_request = np.bincount(own["request"].to_numpy(), time)
    assert len(own) > 30
    assert bound["value_s"] == pytest.approx(np.percentile(per_request, 75))
    assert bound["met"] is bool(bound["value_s"] <= 1.5)
    assert result.requests["slo_met"].to_list() == (per_request <= 1.5).tolist()


def test_the_gaps_between_tokens_are_bounded_over_the_whole_run() -> None:
    summary = run_with("itl_ms: {p50: 1000, p99: 0.001}").summary
    bounds = summary["slo"]["bounds"]
    assert bounds["itl_p50_s"]["value_s"] == summary["itl_s"]["p50"]
    assert bounds["itl_p99_s"]["value_s"] == summary["itl_s"]["p99"]
    assert [bound["met"] for bound in bounds.values()] == [True, False]
    assert summary["slo"]["met"] is False
    assert summary["slo"]["attainment"] is None


def test_a_share_of_requests_keeps_several_limits_at_once() -> None:
    result = run_with("within: {share: 0.5, ttft_ms: 45, tpot_ms: 12}")
    ttft, tpot = (result.requests[name].to_numpy() for name in ("ttft_s", "tpot_s"))
    met = (ttft <= 0.045) & ~(tpot > 0.012)
    assert 0 < met.sum() < len(met)
    bound = result.summary["slo"]["bounds"]["attainment"]
    assert bound == {
        "limit_share": 0.5,
        "value_share": pytest.approx(met.mean()),
        "met": bool(met.mean() >= 0.5),
    }
    assert result.requests["slo_met"].to_list() == met.tolist()


def test_a_share_of_one_pipeline_keeps_several_limits_at_once() -> None:
    within = "within: {share: 0.6, ttft_ms: 40, tpot_ms: 8.5}"
    result = run_with(f"pipelines: {{chat: {{{within}}}}}", "pipeline=mixed", "workload.rate_per_s=8")
    own = result.requests["pipeline"].to_numpy() == "chat"
    ttft, tpot = (result.requests[name].to_numpy() for name in ("ttft_s", "tpot_s"))
    met = (ttft <= 0.04) & ~(tpot > 0.0085)
    assert 0 < met[own].sum() < own.sum() < 60
    bound = result.summary["slo"]["bounds"]["pipelines.chat.attainment"]
    assert bound["limit_share"] == 0.6
    assert bound["value_share"] == pytest.approx(met[own].mean())
    assert bound["met"] is bool(met[own].mean() >= 0.6)
    assert result.requests["slo_met"].to_list() == (met | ~own).tolist()


def test_a_share_of_a_traffic_class_keeps_limits_of_its_own() -> None:
    own = "slo: {within: {share: 0.9, ttft_ms: 30}}"
    classes = f"workload.classes={{chat: {{share: 0.8, {own}}}, batch: {{share: 0.2, output_tokens: 800}}}}"
    result = run_with("ttft_ms: {p50: 1}", "pipeline=llm", "workload=synthetic", classes, *FEW)
    chat = result.requests["class"].to_numpy() == "chat"
    met = result.requests["ttft_s"].to_numpy() <= 0.03
    bound = result.summary["slo"]["bounds"]["classes.chat.attainment"]
    assert bound["value_share"] == pytest.approx(met[chat].mean())
    assert bound["met"] is False
    assert result.summary["classes"]["chat"]["slo"]["bounds"] == {"attainment": bound}
    assert result.requests["slo_met"].to_numpy()[chat].tolist() == met[chat].tolist()
    assert not result.requests["slo_met"].to_numpy()[~chat].any()


def test_one_of_several_pipelines_is_bounded_by_itself() -> None:
    result = run_with("pipelines: {chat: {ttft_ms: {p90: 500}}}", "pipeline=mixed")
    own = result.requests.filter(result.requests["pipeline"] == "chat")
    bound = result.summary["slo"]["bounds"]["pipelines.chat.ttft_p90_s"]
    assert 0 < len(own) < 60
    assert bound["value_s"] == pytest.approx(np.percentile(own["ttft_s"].drop_nulls(), 90))
    assert result.summary["pipelines"]["chat"]["ttft_s"]["p90"] == pytest.approx(bound["value_s"])


@pytest.mark.parametrize(
    ("slo", "problem"),
    [
        (
            "stages: {decod: {p50: 1}}",
            "slo.stages.decod: there is no stage called 'decod'; did you mean 'decode'",
        ),
        ("pipelines: {chat: {}}", "slo.pipelines.chat: one pipeline runs"),
        ("within: {share: 95, ttft_ms: 1}", "slo.within.share: 95 is out of range"),
        ("within: {share: 0.9}", "slo.within: has no limit"),
        ("pipelines: {chat: {within: {share: 0.9}}}", "slo.pipelines.chat: one pipeline runs"),
        ("itl_ms: {p0: 1}", "slo.itl_ms.p0: 'p0' is not a percentile"),
        ("stages: {decode: {p50: 0}}", "slo.stages.decode.p50: 0 is out of range"),
    ],
)
def test_a_bound_that_cannot_be_is_an_error_with_its_key(slo: str, problem: str) -> None:
    with pytest.raises(hf.HermesFlowError) as error:
        run_with(slo)
    assert problem in str(error.value)


@pytest.mark.parametrize("name", ["code_completion", "summarization", "batch", "mlperf_server"])
def test_every_ready_slo_has_bounds_with_values(name: str) -> None:
    slo = hf.simulate(hf.compile(hf.compose([f"slo={name}", *FEW]))).summary["slo"]
    assert slo["met"] in (True, False)
    values = [bound.get("value_s", bound.get("value_share")) for bound in slo["bounds"].values()]
    assert values
    assert all(value is not None for value in values)


def test_the_capacity_follows_an_attainment() -> None:
    slo = "slo={name: own, within: {share: 0.9, ttft_ms: 300, tpot_ms: 30}}"
    found = hf.capacity(hf.compose(["workload.requests=150", slo]), seeds=1, tolerance=0.1)
    assert found.value
    assert found.limiting == ("attainment",)
