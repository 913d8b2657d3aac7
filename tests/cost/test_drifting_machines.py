"""A machine whose speed drifts, and decodes beside prompts: what a fit to a log takes from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import hermes_flow as hf
from hermes_flow.cost.fitted.step_form import fit_steps, fitted_us
from hermes_flow.cost.fitted.tables import read_measurements
from hermes_flow.errors import CompileError, ConfigError

LLM = ("pipeline=llm", "slo=none", "cluster.pools.llm.prefix_cache=false", "cluster.pools.llm.lookahead=0")
LOAD = ("workload=synthetic", "workload.requests=60", "workload.rate_per_s=6", "workload.output_tokens=30")
AFFINE = ("cost=affine", "cost.fixed_us=8000", "cost.per_token_us=30", "cost.per_context_us=0.2")
SLOW = "cluster.pools.llm.failures={slowdowns: [{at_s: 4, client: 0, for_s: 3, factor: 2.5}]}"


def simulate(*overrides: str) -> hf.Result:
    return hf.simulate(hf.compile(hf.compose([*LLM, *LOAD, *overrides])))


@pytest.fixture(scope="module")
def slow_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[hf.Result, Path]:
    """A run whose machine is slow for three seconds, and the table of its steps."""
    run = simulate(*AFFINE, SLOW, "output.steps=true")
    path = tmp_path_factory.mktemp("log") / "steps.parquet"
    run.steps.write_parquet(path)
    return run, path


def test_a_time_in_which_the_machine_was_slow_is_met_when_it_was(slow_run: tuple[hf.Result, Path]) -> None:
    run, path = slow_run
    fit = ("cost=regression", f"cost.path={path}", "cost.form=affine")
    with_drift = simulate(*fit, "cost.drift_s=1").requests
    without = simulate(*fit).requests
    measured = run.requests["e2e_s"]
    assert float(with_drift["e2e_s"].mean()) == pytest.approx(float(measured.mean()), rel=0.02)  # type: ignore[arg-type]
    off = [float((found["e2e_s"] - measured).abs().mean()) for found in (with_drift, without)]  # type: ignore[arg-type]
    assert off[0] < 0.2 * off[1]


def test_compile_tells_how_the_speed_drifts(slow_run: tuple[hf.Result, Path]) -> None:
    _, path = slow_run
    program = hf.compile(hf.compose([*LLM, "cost=regression", f"cost.path={path}", "cost.drift_s=1"]))
    assert "speed by windows of 1 s of the log" in str(program)


def test_a_drift_needs_a_log_with_times_of_one_client(tmp_path: Path) -> None:
    steps = {
        "prefill_tokens": [8, 0, 0],
        "decodes": [0, 1, 2],
        "decode_context": [0, 8, 17],
        "time_us": [9, 5, 6],
    }
    path = tmp_path / "steps.csv"
    asked = ("cost=regression", f"cost.path={path}", "cost.drift_s=1")
    for more, told in (
        ({}, "lacks when a step began"),
        ({"start_us": [0, 9, 14], "client": ["llm/0", "llm/1", "llm/0"]}, "2 values of client"),
        (
            {"start_us": [0, 9, 1_700_000_000_000_000]},
            "expected times that count from the beginning of the run",
        ),
    ):
        pl.DataFrame(steps | more).write_csv(path)
        with pytest.raises((CompileError, ConfigError), match=told):
            simulate(*asked)
    with pytest.raises((CompileError, ConfigError), match=r"needs cost\.path"):
        simulate("cost=regression", "cost.fits={1: {step_us: 9}}", "cost.drift_s=1")


def test_another_scheduler_does_not_drift(slow_run: tuple[hf.Result, Path]) -> None:
    with pytest.raises((CompileError, ConfigError), match=r"cost\.drift_s follows vLLM's scheduler only"):
        simulate("engine=sglang", "cost=regression", f"cost.path={slow_run[1]}", "cost.drift_s=1")


def test_decodes_beside_prompts_have_a_slope_of_their_own_where_a_log_has_both(tmp_path: Path) -> None:
    """Alone a decode takes 100 µs more for each sequence, beside prompts 40."""
    rows = [(0, 0, n, 50 * n + k, 900.0 + 100 * n) for n in range(1, 5) for k in range(30)]
    rows += [(64 + k, 1, n, 50 * n, 3000.0 + 5 * k + 40 * n) for n in range(1, 5) for k in range(8)]
    names = ("prefill_tokens", "prefills", "decodes", "decode_context", "time_us")
    pl.DataFrame(rows, schema=names, orient="row").write_csv(tmp_path / "steps.csv")
    steps = read_measurements(str(tmp_path / "steps.csv"), {}, "cost").steps(1, "key")
    fit = fit_steps(steps, "piecewise")
    assert fit.per_beside_us is not None
    assert np.abs(fitted_us(fit, steps) / steps.time_us - 1).max() < 0.01
