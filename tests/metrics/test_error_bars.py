"""Every prediction says how far its means may be off, by the errors of runs that were left out of the fit."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

import hermes_flow as hf
from benchmarks import error_bars, left_out_rows
from benchmarks.published import wide_pair
from hermes_flow.metrics.error_bars.bars import step_times
from hermes_flow.metrics.error_bars.kinds import kind_of
from hermes_flow.metrics.error_bars.table import FILE, error_table
from hermes_flow.program.evidence import Evidence
from hermes_flow.report.error_text import error_text

TENSORRT_LLM_APART = [f"engine@cluster.pools.{pool}.engine=tensorrt_llm" for pool in ("prefill", "decode")]
LLM = ["pipeline=llm", "workload.requests=60", "workload.rate_per_s=2"]


def evidence_on(engine: str, gpu: str, model: str, mixture: bool = False) -> Evidence:
    table = error_table()
    shape = table.models.get(model, (1, 2, 3))
    return Evidence(
        "roofline",
        engine,
        gpu,
        "gpu",
        table.hardware[gpu],
        table.kernels.get(gpu, gpu),
        model,
        shape,
        mixture,
    )


@pytest.fixture(scope="module")
def kinds() -> error_bars.Kinds:
    return error_bars.kinds_of(left_out_rows.read())


@pytest.fixture(scope="module")
def calibration(kinds: error_bars.Kinds) -> dict[tuple[str, str], error_bars.Calibration]:
    return {(each.kind, each.metric): each for each in error_bars.calibration(kinds)}


def summary_of(*overrides: str) -> dict[str, Any]:
    return hf.simulate(hf.compile(hf.compose([*LLM, *overrides]))).summary


def test_the_table_is_that_of_its_rows(kinds: error_bars.Kinds) -> None:
    """A table that is not: python -m benchmarks.error_bars."""
    assert FILE.read_text(encoding="utf-8") == error_bars.text(left_out_rows.read(), kinds)


def test_intervals_cover_four_of_five_runs_that_they_were_made_without(
    calibration: dict[tuple[str, str], error_bars.Calibration],
) -> None:
    for each in calibration.values():
        assert 0.75 <= each.fit.covered <= 0.90, each
    for metric in left_out_rows.METRICS:
        fits = [each.fit for each in calibration.values() if each.metric == metric]
        runs = sum(fit.runs for fit in fits)
        assert 0.78 <= sum(fit.runs * fit.covered for fit in fits) / runs <= 0.85
        assert 0.70 <= sum(fit.runs * fit.strictly for fit in fits) / runs <= 0.85


SHARP = 1.7  # the goal is 1.5
NEW_MODEL = 1.9  # as errors that scatter like a normal distribution
NORMAL = 2.1  # those of few models or GPUs have longer tails
FEW_GPUS = 2.75  # four GPUs, or one, can be left out, and the errors of one say little of those of the others
UNKNOWN_WAITS = 2.8  # what some prompts wait for is not recorded


@pytest.mark.parametrize(
    ("kind", "bound"),
    [
        ("same, found", SHARP),
        ("same, computed", SHARP),
        ("same, unrecorded", SHARP),
        ("apart, computed", NEW_MODEL),
        ("none, found", SHARP),
        ("other, found", NEW_MODEL),
        ("other, computed", NORMAL),
        ("sibling, computed", FEW_GPUS),
        ("apart elsewhere, computed", FEW_GPUS),
        ("kernels, computed", NORMAL),
        ("other, unrecorded", NORMAL),
        ("kernels, unrecorded", NORMAL),
        ("none, computed", FEW_GPUS),
    ],
)
@pytest.mark.parametrize("metric", ["tpot", "e2e"])
def test_intervals_are_as_sharp_as_what_is_known_allows(
    calibration: dict[tuple[str, str], error_bars.Calibration], kind: str, bound: float, metric: str
) -> None:
    assert calibration[kind, metric].fit.ratio <= bound


@pytest.mark.parametrize(
    ("kind", "bound"),
    [
        ("same, computed", NEW_MODEL),
        ("other, computed", NORMAL),
        ("kernels, computed", NORMAL),
        ("sibling, computed", FEW_GPUS),
        ("other, unrecorded", NORMAL),
        ("none, computed", FEW_GPUS),
        ("apart, computed", UNKNOWN_WAITS),
        ("apart elsewhere, computed", UNKNOWN_WAITS),
    ],
)
def test_intervals_of_times_to_the_first_token_are_nearly_as_sharp(
    calibration: dict[tuple[str, str], error_bars.Calibration], kind: str, bound: float
) -> None:
    assert calibration[kind, "ttft"].fit.ratio <= bound


@pytest.mark.parametrize(
    ("overrides", "kind"),
    [
        ([], "h100_sxm measured, this model in too few runs; prompts computed"),
        (["model=llama2_7b", "model.layers=30"], "h100_sxm measured, this model not; prompts computed"),
        (
            ["model=llama3_70b", "cluster.pools.llm.tensor_parallel=4"],
            "h100_sxm and this model measured; prompts",
        ),
        (
            [
                "model=deepseek_v3",
                "hardware=b300_sxm",
                "engine=sglang",
                "cluster.pools.llm.tensor_parallel=8",
            ],
            "b300_sxm measured, this model in too few runs; prompts computed; engine sglang",
        ),
        (["hardware=a100_sxm"], "kernels of a100_sxm measured, serving on it not; prompts computed"),
        (
            ["hardware=a100_sxm", "model=llama3_70b", "cluster.pools.llm.tensor_parallel=4"],
            "kernels of a100_sxm measured, serving on it not; this model measured on other hardware; prompts",
        ),
        (["hardware=gb200"], "gb200 not measured, kernels of b200_sxm; prompts computed"),
        (["hardware.efficiency=null"], "h100_sxm with other figures, not measured"),
        (["hardware.bandwidth_gb_s=900"], "h100_sxm with other figures, not measured"),
        (["hardware=mi300x"], "mi300x not measured, nor other accelerators of amd; prompts computed"),
        (["engine=tensorrt_llm"], "prompts computed; engine tensorrt_llm"),
        (["cluster=disaggregated"], "prefill and decode apart; prompts computed"),
        (
            ["cluster=disaggregated", "hardware=gb300", *TENSORRT_LLM_APART],
            "prefill and decode apart on gb300; prompts computed; engine tensorrt_llm",
        ),
        (
            ["cluster=disaggregated", "hardware=h200_sxm", *TENSORRT_LLM_APART],
            "prefill and decode apart on h200_sxm; prompts computed; engine tensorrt_llm",
        ),
    ],
    ids=lambda value: " ".join(value) or "default" if isinstance(value, list) else "",
)
def test_the_kind_says_what_was_measured(overrides: list[str], kind: str) -> None:
    summary = summary_of(*overrides)
    for metric in ("ttft_s", "tpot_s", "e2e_s"):
        bar = summary["error"][metric]
        assert kind in bar["kind"]
        assert 0 < bar["low"] < bar["high"]
        assert bar["runs"] >= 5
    factors = step_times(summary)
    assert factors is not None
    assert factors.low < factors.high
    assert "left-out run" in error_text(summary)


@pytest.mark.parametrize(
    ("features", "engine", "said"),
    [
        (("mxfp4 weights",), "vllm", None),
        (("layers that keep a state",), "sglang", None),
        (("sparse attention", "int4 weights"), "vllm", "no run with sparse attention"),
        (("speculative decoding",), "sglang", "no run with speculative decoding"),
    ],
)
def test_the_kind_names_what_no_run_of_the_engine_has(
    features: tuple[str, ...], engine: str, said: str | None
) -> None:
    table = error_table()
    gpu = "h200_sxm"
    evidence = Evidence(
        "roofline", engine, gpu, "gpu", table.hardware[gpu], gpu, "new", (1, 2, 3), True, features, "nvidia"
    )
    kind = kind_of(evidence, computed=True, busy=False, apart=False, table=table)
    assert kind is not None
    notes = [note for note in kind.text.split("; ") if note.startswith("no run with")]
    assert notes == ([] if said is None else [said])


def test_a_bar_of_a_new_model_is_nearly_as_sharp_as_one_that_knows_the_size_of_its_very_errors(
    kinds: error_bars.Kinds, calibration: dict[tuple[str, str], error_bars.Calibration]
) -> None:
    """Only the direction of the errors of its model would make it sharp, and nothing tells it for a new one."""
    for metric in left_out_rows.METRICS:
        known = kinds["same", "computed"].intervals(metric)
        without_direction = known.fit(depth=0).ratio
        assert known.fit().ratio < without_direction
        assert calibration["other, computed", metric].fit.ratio < 1.25 * without_direction


@pytest.mark.parametrize(
    ("engine", "gpu", "model", "kind"),
    [
        ("sglang", "gb300", "deepseek_v3", "prefill and decode apart on gb300 with this model"),
        ("sglang", "gb300", "kimi_k2_5", "prefill and decode apart on gb300"),
        (
            "sglang",
            "b300_sxm",
            "deepseek_v3",
            "prefill and decode apart; this model measured on other hardware",
        ),
        ("sglang", "b300_sxm", "kimi_k2_5", "prefill and decode apart"),
        ("vllm", "h200_sxm", "kimi_k2_5", "prefill and decode apart"),
    ],
)
def test_bars_of_prefill_and_decode_apart_lean_on_the_nearest_runs(
    engine: str, gpu: str, model: str, kind: str
) -> None:
    found = kind_of(
        evidence_on(engine, gpu, model), computed=True, busy=False, apart=True, table=error_table()
    )
    assert found is not None
    assert found.text.partition("; prompts computed")[0] == kind


@pytest.mark.parametrize(
    ("engine", "gpu", "model", "kind"),
    [
        ("vllm", "h100_sxm", "llama2_7b", "h100_sxm and this model measured"),
        (
            "vllm",
            "h200_sxm",
            "llama3_70b",
            "h200_sxm and this model measured; no such run with prompts from a prefix cache",
        ),
        (
            "sglang",
            "b200_sxm",
            "new",
            "b200_sxm measured, this model not; engine sglang; no such run with prompts from a",
        ),
    ],
)
def test_prompts_of_a_cache_are_compared_with_such_runs_or_the_kind_says_that_there_are_none(
    engine: str, gpu: str, model: str, kind: str
) -> None:
    evidence = evidence_on(engine, gpu, model, mixture=model == "new")
    found = kind_of(evidence, computed=False, busy=False, apart=False, table=error_table())
    assert found is not None
    assert found.text.startswith(kind)
    assert ("no such run" in found.text) == ("no such run" in kind)


def test_bars_are_those_of_runs_whose_method_is_recorded_where_there_are_enough() -> None:
    """SGLang ran dense models, and TensorRT-LLM ran all models on H100, only where nobody says how."""
    rows = [
        row
        for row in left_out_rows.read()
        if row.left_out in ("serving", "sibling") and row.layout == "replicas" and row.hit_share < 0.05
    ]
    groups, unrecorded = error_table().groups, set()
    for engine, gpu in sorted({(row.engine, row.hardware) for row in rows}):
        for each, interval in groups[f"{engine}/{gpu}/other/computed"]["ttft"].items():
            here = [row for row in rows if (row.engine, row.hardware) == (engine, gpu)]
            recorded = [row for row in here if row.recorded and error_bars.class_of(row) == each]
            assert interval.recorded or len(recorded) < error_bars.FEWEST
            if not interval.recorded:
                unrecorded.add((engine, gpu, each))
    assert ("sglang", "b200_sxm", "dense") in unrecorded
    assert {each for engine, gpu, each in unrecorded if (engine, gpu) == ("tensorrt_llm", "h100_sxm")} == {
        "dense",
        "mixture",
    }
    assert not any(engine == "vllm" for engine, _, _ in unrecorded)


def test_bars_that_predictions_get_hold_runs_of_either_kind(kinds: error_bars.Kinds) -> None:
    groups = error_bars.table(left_out_rows.read(), kinds)["groups"]
    for prompts, metric in product(("computed", "unrecorded"), left_out_rows.METRICS):
        assert 0.74 <= error_bars.held(kinds, groups, prompts, metric) <= 0.9  # asked 0.75


@pytest.mark.parametrize(
    ("overrides", "noted"),
    [
        (["engine=sglang", "hardware=b200_sxm"], True),
        (["engine=tensorrt_llm"], True),
        (["engine=tensorrt_llm", "hardware=h200_sxm"], False),
        ([], False),
    ],
    ids=["dense on SGLang", "TensorRT-LLM on H100", "TensorRT-LLM on H200", "vLLM"],
)
def test_the_kind_says_where_it_is_not_recorded_how_runs_were_measured(
    overrides: list[str], noted: bool
) -> None:
    for bar in summary_of(*overrides)["error"].values():
        assert bar["kind"].endswith("how these were measured is not recorded") == noted


def test_the_bar_of_a_wide_pair_holds_what_was_measured_by_others() -> None:
    """InferenceMAX has 28.0 ms for this layout, load and engine, and 30.6 ms with TensorRT-LLM, which is outside."""
    bars = hf.simulate(hf.compile(hf.compose([*wide_pair()]))).summary["error"]
    assert bars["tpot_s"]["low"] < 0.0280 < bars["tpot_s"]["high"]


def test_prompts_of_a_cache_have_the_errors_of_runs_with_a_cache() -> None:
    sessions = ["workload=sessions", "workload.sessions=20", "cluster.pools.llm.prefix_cache=true"]
    summary = hf.simulate(hf.compile(hf.compose(["pipeline=llm", *sessions]))).summary
    assert summary["error"]["tpot_s"]["kind"] == "h100_sxm and this model measured"
    interval = error_table().groups["vllm/h100_sxm/same/found"]["tpot"]["light"]
    assert summary["error"]["tpot_s"]["low"] == pytest.approx(summary["tpot_s"]["mean"] * interval.low)
    assert summary["error"]["tpot_s"]["high"] == pytest.approx(summary["tpot_s"]["mean"] * interval.high)


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (
            ["cost=affine", "cost.fixed_us=100", "cost.per_token_us=1", "cost.per_context_us=0"],
            "no error bar: its step times are given (cost=affine)",
        ),
        (
            ["hardware=sapphire_rapids", "hardware.overheads_of=a100_sxm"],
            "no error bar: no measured run of an LLM on sapphire_rapids",
        ),
    ],
    ids=["affine", "cpu"],
)
def test_what_was_never_measured_has_no_bar_and_says_so(overrides: list[str], reason: str) -> None:
    summary = summary_of(*overrides)
    for metric in ("ttft_s", "tpot_s", "e2e_s"):
        assert summary["error"][metric]["low"] is None
        assert summary["error"][metric]["high"] is None
        assert summary["error"][metric]["kind"].startswith(reason)
    assert step_times(summary) is None
    assert error_text(summary).startswith(reason.replace("no error bar", "none"))


def test_an_endpoint_has_no_bar_and_says_so() -> None:
    large = "cluster.pools.large"
    asked = [f"pool@{large}=endpoint", f"{large}.model.name=big", f"{large}.requests_per_minute=400"]
    config = hf.compose(["pipeline=cascade", "workload.requests=40", *asked])
    summary = hf.simulate(hf.compile(config)).summary
    assert summary["error"]["e2e_s"]["low"] is None
    assert summary["error"]["e2e_s"]["kind"] == (
        "no error bar: pool large: its times are those that are given for an API"
    )


def test_an_overloaded_run_has_a_bar_of_its_steps_alone() -> None:
    summary = hf.simulate(hf.compile(hf.compose(["pipeline=llm", "workload.rate_per_s=200"]))).summary
    error = summary["error"]
    assert summary["limits"]["saturated"]
    assert error["tpot_s"]["low"] < error["tpot_s"]["high"]
    for metric in ("ttft_s", "e2e_s"):
        assert error[metric]["low"] is None
        assert "its backlog grows" in error[metric]["kind"]
    assert "none for TTFT and E2E" in error_text(summary)


def test_a_wait_at_a_gateway_leaves_a_bar_of_the_steps_alone() -> None:
    load = ["pipeline=llm", "workload=synthetic", "workload.requests=60", "workload.rate_per_s=3"]
    light = hf.simulate(hf.compile(hf.compose(load))).summary["error"]
    assert light["ttft_s"]["low"] is not None
    gateway = "cluster.admission={policy: limit, max_in_flight: 4, on_full: hold}"
    summary = hf.simulate(hf.compile(hf.compose([*load, gateway]))).summary
    error = summary["error"]
    assert summary["critical_path"]["mean"]["shares"]["gateway"] > 0.05
    assert error["tpot_s"]["low"] is not None
    for metric in ("ttft_s", "e2e_s"):
        assert error[metric]["low"] is None


def test_the_bar_covers_only_the_time_in_llm_clients() -> None:
    summary = hf.simulate(hf.compile(hf.compose(["pipeline=rag", "workload.requests=40"]))).summary
    bar, mean = summary["error"]["e2e_s"], summary["e2e_s"]["mean"]
    shares = summary["critical_path"]["mean"]["shares"]
    others = sum(share for stage, share in shares.items() if stage not in ("prefill", "decode"))
    assert bar["covers"] == pytest.approx(1 - others)
    assert bar["high"] - bar["low"] < mean
    assert bar["low"] > others * mean
    assert summary["error"]["ttft_s"]["covers"] < 1
    assert "covers the time in LLM clients" in error_text(summary)


@pytest.mark.parametrize(
    ("given", "noted"),
    [
        (("hardware.engine.layer_us=50",), "constants of your own"),
        (("cluster.pools.llm.hardware.engine.ingest_ms=1",), "constants of your own"),
        (("engine.overheads.h100_sxm.layer_us=100",), "constants of your own"),
        (("hardware.usd_per_hour=3", "hardware.power_w=500"), None),
        (("cluster.pools.llm.pipeline_parallel=2",), "pipeline ranks"),
        (("cluster.pools.llm.adapters={slots: 2}", "workload.adapters={count: 3, skew: 1}"), "LoRA adapters"),
    ],
)
def test_what_no_measured_run_has_is_named(given: tuple[str, ...], noted: str | None) -> None:
    load = ("pipeline=llm", "workload=synthetic", "workload.requests=10")
    result = hf.simulate(hf.compile(hf.compose([*load, *given])))
    for bar in result.summary["error"].values():
        assert bar["kind"].partition("no run with ")[2] == (noted or "")
