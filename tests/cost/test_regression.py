"""``cost=regression``: lines fitted to tables whose law is known, what they refuse, and measured servers."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from cost.step_tables import SHAPES, decode_us, prefill_us, regression, us, write_shapes

import hermes_flow as hf
from hermes_flow.cost.fitted.held_out import held_out
from hermes_flow.cost.fitted.least_squares import Pulls, least_relative, nonnegative
from hermes_flow.cost.fitted.step_form import fit_steps, fitted_us
from hermes_flow.cost.fitted.steps import Errors
from hermes_flow.cost.fitted.tables import read_measurements
from hermes_flow.errors import CompileError, ConfigError


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_shapes(tmp_path / "shapes.csv")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log of steps, most of them mixed, that take 3 ms + 12 µs a token + 9 µs a decode + …"""
    rng = np.random.default_rng(5)
    lines = ["prefill_tokens,prefill_context,decodes,decode_context,time_us"]
    for _ in range(300):
        prompt, decodes = (int(rng.integers(0, 900)) * int(rng.integers(0, 2)), int(rng.integers(0, 40)))
        past, context = int(rng.integers(0, 600)) * (prompt > 0), decodes * int(rng.integers(1, 3000))
        if prompt + decodes:
            lines.append(f"{prompt},{past},{decodes},{context},{mixed_us(prompt, past, decodes, context)}")
    path = tmp_path / "steps.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def mixed_us(prompt: int, past: int, decodes: int, context: int) -> float:
    pairs = prompt * (past + prompt / 2)
    return (
        3000 + 12 * (prompt + decodes) + 9 * decodes + 0.02 * context + (700 + 0.004 * pairs) * (prompt > 0)
    )


def test_steps_of_shapes_that_were_never_measured_follow_the_law_of_the_table(table: Path) -> None:
    cost = regression(table)
    for prompt, batch in ((96, 1), (384, 2), (700, 1), (1500, 1), (3000, 1)):
        found = us(cost.step_ps([(prompt, 0)] * batch, 0, 0))
        assert found == pytest.approx(prefill_us(prompt, batch), rel=0.02), (prompt, batch)
    for sequences, context in ((1, 3000), (3, 900), (12, 12_000), (24, 5000)):
        assert us(cost.step_ps([], sequences, context)) == pytest.approx(
            decode_us(sequences, context), rel=0.01
        )


def test_a_straight_line_is_recovered_from_a_log_with_all_its_coefficients(log: Path) -> None:
    measured = read_measurements(str(log), {}, "cost")
    fit = fit_steps(measured.steps(1, "key"), "affine")
    assert (fit.step_us, fit.per_token_us, fit.per_decode_us) == pytest.approx((3000, 12, 9), rel=1e-3)
    assert (fit.per_context_us, fit.prefill_us, fit.per_pair_us) == pytest.approx(
        (0.02, 700, 0.004), rel=1e-3
    )
    assert fit.per_past_us == pytest.approx(0.0, abs=1e-3)


def test_decodes_beside_a_chunk_take_what_the_log_says(log: Path) -> None:
    cost = regression(log, form="affine")
    assert us(cost.step_ps([(200, 300)], 20, 8000)) == pytest.approx(mixed_us(200, 300, 20, 8000), rel=1e-3)
    piecewise = regression(log)
    assert us(piecewise.step_ps([(200, 300)], 20, 8000)) == pytest.approx(
        mixed_us(200, 300, 20, 8000), rel=0.02
    )


def test_the_steps_of_a_run_give_the_cost_that_made_them(tmp_path: Path) -> None:
    law = ["cost=affine", "cost.fixed_us=7000", "cost.per_token_us=30", "cost.per_context_us=0.02"]
    run = ["pipeline=llm", "workload=synthetic", "workload.requests=150", "output.steps=true"]
    hf.simulate(hf.compile(hf.compose([*run, *law]))).write(tmp_path)
    fitted = ["cost=regression", f"cost.path={tmp_path / 'steps.parquet'}", "cost.form=affine"]
    made, known = (hf.compile(hf.compose([*run, *cost])).pools for cost in (fitted, law))
    ours, theirs = (next(p.client.cost for p in pools if p.name == "llm") for pools in (made, known))  # type: ignore[union-attr]
    for step in (([(500, 0)], 0, 0), ([(100, 0)], 5, 4000), ([], 10, 20_000)):
        assert ours.step_ps(*step) == pytest.approx(theirs.step_ps(*step), rel=0.02)


def test_a_repetition_gone_wrong_does_not_bend_the_line(tmp_path: Path) -> None:
    plain = regression(write_shapes(tmp_path / "plain.csv"))
    again = write_shapes(tmp_path / "again.csv", SHAPES * 3, more="512,1,64,52,9.9\n")
    assert regression(again).tokens_ps[600] == pytest.approx(plain.tokens_ps[600], rel=0.01)


def test_each_further_prompt_costs_what_it_cost_alone_and_decodes_do_not() -> None:
    figures = {"step_us": 100.0, "per_token_us": 1.0, "per_decode_us": 3.0, "prefill_us": 20.0}
    cost = regression(fits={1: figures | {"per_prompt_us": 50.0, "per_context_us": 0.5}})
    assert us(cost.step_ps([(10, 0)], 0, 0)) == pytest.approx(130)
    assert us(cost.step_ps([(10, 0)] * 3, 0, 0)) == pytest.approx(100 + 30 + 20 + 100)
    assert us(cost.step_ps([], 4, 60)) == pytest.approx(100 + 4 + 12 + 30)
    assert us(cost.step_ps([(10, 0)] * 2, 4, 60)) == pytest.approx(100 + 24 + 12 + 30 + 20 + 50)
    assert cost.decode_ps[4] == cost.step_ps([], 4, 0)


def test_points_are_joined_by_lines_and_the_last_slope_goes_on() -> None:
    bends = {"tokens": [100.0, 200.0], "tokens_us": [50.0, 250.0], "decodes": [8.0], "decodes_us": [16.0]}
    cost = regression(fits={1: {"step_us": 10.0, "per_token_us": 3.0, "per_decode_us": 5.0} | bends})
    assert [us(cost.tokens_ps[tokens]) for tokens in (0, 50, 150, 300)] == [0, 35, 160, 560]
    assert [us(cost.decode_attention_ps[n]) for n in (0, 4, 10)] == [0, 8, 26]


def test_what_lies_outside_the_table_is_told_or_refused(table: Path) -> None:
    notes = regression(table, most=(10_000, 64)).provenance
    assert any(
        "outside the measurements, extrapolated: tokens of a step, 1,808 of 10,000" in note for note in notes
    )
    assert any("decodes of a step, 32 of 64 outside 1 to 32, up to 64" in note for note in notes)
    with pytest.raises(ConfigError, match=r"cost.strict: outside the measurements of .*tokens of a step"):
        regression(table, most=(10_000, 32), strict=True)
    assert regression(table, most=(8192, 32), strict=True).provenance == regression(table).provenance


def test_the_origin_and_the_error_of_the_fit_are_told(table: Path) -> None:
    first, second, *_ = regression(table).provenance
    assert first == f"regression (piecewise): {table}: 16 of 16 rows"
    assert second.startswith("fit: prefill 0.")


def test_of_a_long_log_steps_of_every_shape_are_fitted(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    decodes = rng.integers(1, 90, 9000)
    contexts = decodes * rng.integers(1, 4000, 9000)
    rows = [f"0,{n},{c},{900 + 7 * n + 0.01 * c}" for n, c in zip(decodes, contexts, strict=True)]
    rows += ["500,0,0,4000", "700,0,0,5000", "900,0,0,6000"]
    path = tmp_path / "long.csv"
    path.write_text("prefill_tokens,decodes,decode_context,time_us\n" + "\n".join(rows) + "\n")
    steps = read_measurements(str(path), {}, "cost").steps(1, "key")
    assert 3000 < len(steps) <= 4000
    assert sorted(steps.prefill_tokens[steps.prefill_tokens > 0]) == [500, 700, 900]
    known = {(int(np.log2(n + 1)), int(np.log2(c + 1))) for n, c in zip(decodes, contexts, strict=True)}
    kept = zip(steps.decodes[steps.decodes > 0], steps.decode_context[steps.decodes > 0], strict=True)
    assert {(int(np.log2(n + 1)), int(np.log2(c + 1))) for n, c in kept} == known


BAD = "512,1,64,,9.9\n512,1,64,30,-2\n512,one,64,30,9.9\n512,1,64,inf,9.9\n"


def test_rows_that_cannot_be_used_are_left_out_and_named_by_line(tmp_path: Path) -> None:
    path = write_shapes(tmp_path / "bad.csv", more=BAD)
    measured = read_measurements(str(path), {}, "cost")
    assert (measured.rows, measured.left_out) == (20, 4)
    assert measured.faults == (
        f"{path}:18: prefill_ms is empty; expected a positive number",
        f"{path}:19: decode_ms is '-2'; expected a positive number",
        f"{path}:20: batch is 'one'; expected a number ≥ 1",
        f"{path}:21: prefill_ms is 'inf'; expected a positive number",
    )
    assert regression(path).tokens_ps == regression(write_shapes(tmp_path / "good.csv")).tokens_ps


def test_repetitions_that_contradict_each_other_are_left_out(tmp_path: Path) -> None:
    pair = "3000,1,64,90,9.9\n3000,1,64,400,9.9\n"
    measured = read_measurements(str(write_shapes(tmp_path / "pair.csv", more=pair)), {}, "cost")
    assert [fault.split(": ", 1)[0][-2:] for fault in measured.faults] == ["18", "19"]
    assert "90 ms, while the median of 2 rows of the same sizes is 245 ms" in measured.faults[0]


def test_a_prefill_faster_than_half_of_it_is_left_out(tmp_path: Path) -> None:
    measured = read_measurements(
        str(write_shapes(tmp_path / "fast.csv", more="256,64,64,120,9.9\n")), {}, "cost"
    )
    assert measured.left_out == 1
    assert "fast.csv:18: 64 × 256 tokens prefilled in 120 ms, though 32 × 256 took" in measured.faults[0]


def test_a_table_of_nothing_but_bad_rows_is_an_error(tmp_path: Path) -> None:
    path = write_shapes(tmp_path / "bad.csv", [], more=BAD)
    with pytest.raises(
        ConfigError, match=r"cost.path: none of 4 rows of .*bad.csv can be used:\n  - .*bad.csv:2: "
    ):
        regression(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "neither a table of shapes"),
        ("prompt,prefill_ms\n1,2\n", "lacks batch"),
        ("prefill_tokens,decodes,time_ms\n1,2,3\n", "lacks a column decode_context; it has: prefill_tokens"),
        (
            "prompt,batch,decode_ms,token_time\n1,1,2,2\n",
            "has decode_ms and token_time; expected one of them",
        ),
        (
            "decodes,decode_context,prefill_tokens,time_us,duration_ms\n1,2,0,3,4\n",
            "has time_us and duration_ms; expected one of them",
        ),
        ("decodes,decode_context,prefill_tokens\n1,2,0\n", "lacks the time of a step"),
        ("arrival_s,input_tokens,output_tokens,ttft_s\n0,1,1,1\n", "is a log of requests"),
        ("prompt,batch,prefill_ms\n1,1,2\n", "1 distinct steps; expected 3 or more"),
        ("prompt,batch,prefill_ms\n", "has no rows"),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        regression(path)
    assert caught.value.key.startswith("cost.")


CONFIGURATIONS = """\
model,tp,prompt,batch,prefill_us
a,1,100,1,1000
a,1,200,1,2000
a,1,300,1,3000
a,2,100,1,600
a,2,200,1,1100
a,2,400,1,2100
b,1,100,1,9000
"""


@pytest.fixture
def several(tmp_path: Path) -> Path:
    path = tmp_path / "several.csv"
    path.write_text(CONFIGURATIONS)
    return path


def test_rows_of_several_models_must_be_told_apart(several: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"cost.where: .* has rows of several: model a, b; choose, as in \+cost.wh"
    ):
        regression(several)
    with pytest.raises(ConfigError, match=r"cost.where.model: no row of .* has c \(there are: a, b\)"):
        regression(several, where={"model": "c"})
    with pytest.raises(ConfigError, match=r"cost.where.gpu: .* has no such column"):
        regression(several, where={"gpu": "a"})


def test_rows_of_as_many_devices_as_the_pool_has_are_used(several: Path) -> None:
    one, two = (regression(several, devices, (300, 4), where={"model": "a"}) for devices in (1, 2))
    assert us(one.step_ps([(300, 0)], 0, 0)) == pytest.approx(3000, rel=1e-3)
    assert us(two.step_ps([(300, 0)], 0, 0)) == pytest.approx(1600, rel=1e-3)
    with pytest.raises(ConfigError, match=r"cluster.pools.llm.tensor_parallel: 4; .* has rows of 1, 2"):
        regression(several, 4, where={"model": "a"})


FIT = {"step_us": 100.0, "per_token_us": 1.0}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "cost.path: neither path nor fits"),
        ({"path": "x.csv", "fits": {1: FIT}}, "cost.path: both path and fits"),
        ({"fits": {2: FIT, 8: FIT}}, "cluster.pools.llm.tensor_parallel: 1; cost.fits has 2, 8"),
        ({"fits": {1: FIT | {"per_pair_us": -1.0}}}, "cost.fits.1.per_pair_us: -1 is out of range"),
        (
            {"fits": {1: FIT | {"tokens": [9.0, 3.0], "tokens_us": [1.0, 2.0]}}},
            "cost.fits.1.tokens: the numbers fall",
        ),
        ({"fits": {1: FIT | {"decodes": [9.0]}}}, "cost.fits.1.decodes_us: 0 times for 1 decodes"),
        ({"fits": {1: {"step_us": 0.0}}}, "cost.fits.1.step_us: 0, like all the others"),
        ({"fits": {1: {}}}, "cost.fits.1.step_us: missing"),
        (
            {"fits": {1: FIT}, "model": "llama2_70b"},
            "cluster.pools.llm.model: llama3_8b, but cost.model says",
        ),
        (
            {"fits": {1: FIT}, "hardware": "l40s"},
            "cluster.pools.llm.hardware: h100_sxm, but cost.hardware says",
        ),
    ],
)
def test_fits_that_cannot_be_are_refused_by_their_key(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        regression(**keys)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    "asked", ["cluster.pools.llm.pipeline_parallel=2", "+model@cluster.pools.llm.speculative.draft=llama3_8b"]
)
def test_only_what_was_measured_is_answered(table: Path, asked: str) -> None:
    with pytest.raises((ConfigError, CompileError), match="cost=regression has no measurements of it"):
        hf.compile(hf.compose(["cost=regression", f"cost.path={table}", asked]))


def test_weights_are_the_nonnegative_ones_with_the_least_squares() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        matrix, target = rng.normal(size=(12, 5)), rng.normal(size=12)
        found = nonnegative(matrix, target)
        slope = matrix.T @ (matrix @ found - target)
        assert (found >= 0).all()
        assert (slope > -1e-9).all()  # no weight would gain by growing,
        assert np.abs(slope[found > 0]).max(initial=0) < 1e-9  # nor one that is not 0 by shrinking


def test_without_scipy_a_fit_names_the_extra_to_install(table: Path) -> None:
    with (
        patch.dict(sys.modules, {"scipy.optimize": None}),
        pytest.raises(hf.HermesFlowError) as caught,
    ):
        hf.compile(hf.compose(["cost=regression", f"cost.path={table}"]))
    message = "fitting measurements needs SciPy; install it with: pip install 'hermes-flow[calibrate]'"
    assert str(caught.value).endswith(message)


def test_errors_count_relative_to_the_time_and_one_gone_wrong_hardly_counts() -> None:
    sizes = np.array([1.0, 10.0, 100.0, 1000.0, 1000.0])
    times = 3.0 * sizes
    times[4] *= 2
    found = least_relative(sizes[:, None], times, Pulls.none(1))
    assert found[0] == pytest.approx(3.0, rel=0.02)


def test_what_is_held_out_is_not_known_to_the_fit(table: Path) -> None:
    steps = read_measurements(str(table), {}, "cost").steps(1, "key")
    asked = []
    held_out(steps, lambda known, left: asked.append(set(known.shape) & set(left.shape)) or left.time_us)  # type: ignore[func-returns-value]
    assert len(asked) == len(set(steps.shape)) == 29
    assert not any(asked)


@pytest.mark.shared_data
def test_servers_are_predicted_on_shapes_left_out(shared_data: Path) -> None:
    """Means over the steps of a configuration; the last column of docs/calibration.md is of these."""
    path = str(shared_data / "dgx_perf" / "perf_model.csv")
    found: dict[tuple[str, str, int], Errors] = {}
    for model, hardware in itertools.product(("bloom-176b", "llama2-70b"), ("a100-80gb", "h100-80gb")):
        measured = read_measurements(path, {"model": model, "hardware": hardware}, "cost")
        for devices, steps in measured.by_tensor_parallel.items():
            assert devices is not None
            found[model, hardware, devices] = held_out(
                steps, lambda known, left: fitted_us(fit_steps(known, "piecewise"), left)
            )
    assert len(found) == 8
    prefill, decode = ([each.mean[kind] for each in found.values()] for kind in ("prefill", "decode"))
    assert np.mean(prefill) < 0.055
    assert np.mean(decode) < 0.025
    assert sum(mean <= 0.07 for mean in prefill) >= 7
    assert max(prefill) < 0.08
    assert sum(mean <= 0.0255 for mean in decode) >= 7
    assert max(decode) < 0.05  # A100 on 2: answers of 128 tokens were 9 % faster a token than longer ones
