"""Calibrations from logs: several files, skewed times, slopes with little support, one pool of many, other GPUs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

import hermes_flow as hf
from hermes_flow.cost.fitted.step_form import fit_steps, fitted_us
from hermes_flow.cost.fitted.tables import read_measurements
from hermes_flow.errors import ConfigError
from hermes_flow.report.validation_table import validation_table
from hermes_flow.tasks import verbs
from hermes_flow.validation.compare import compare
from hermes_flow.validation.description import read_description

CASES = Path(__file__).parents[1] / "workload" / "cases"
HEAD = "prefill_tokens,prefill_context,decodes,decode_context,time_us\n"


def calibrate(folder: Path, path: str, *overrides: str) -> str:
    config = hf.compose(["task=calibrate", f"task.path={path}", f"task.into={folder / 'mine'}", *overrides])
    (folder / "run").mkdir(exist_ok=True)
    return verbs.parse(config.task, "task").run(config, folder / "run")


def steps(folder: Path, name: str, *, skew: float = 0.0, past: int = 0, seed: int = 0) -> tuple[Path, float]:
    """Write a log of 600 steps, ``past`` of them with computed tokens of prompts; return its total time."""
    rng = np.random.default_rng(seed)
    decodes = rng.integers(1, 64, 600)
    context = decodes * rng.integers(200, 2000, 600)
    prompts = np.where(rng.random(600) < 0.2, rng.integers(50, 800, 600), 0)
    computed = np.zeros(600, dtype=int)
    computed[:past], prompts[:past] = 5000, 100
    law = 3000 + 20 * decodes + 0.004 * context + 15 * prompts + 0.1 * computed
    times = law * np.exp(skew * rng.standard_exponential(600))
    rows = zip(prompts, computed, decodes, context, times, strict=True)
    (folder / name).write_text(HEAD + "".join(",".join(map(str, row)) + "\n" for row in rows))
    return folder / name, float(times.sum())


def test_a_fit_of_skewed_steps_keeps_their_total_time(tmp_path: Path) -> None:
    path, total = steps(tmp_path, "steps.csv", skew=0.3)
    (measured,) = read_measurements(str(path), {}, "task").by_tensor_parallel.values()
    assert measured.rows is not None
    assert measured.rows.sum() == 600
    fit = fit_steps(measured, "piecewise")
    assert measured.rows @ fitted_us(fit, measured) == pytest.approx(total, rel=1e-9)


def test_a_long_log_that_is_thinned_out_keeps_its_total_time_too(tmp_path: Path) -> None:
    totals = [steps(tmp_path, f"{seed}.csv", skew=0.3, seed=seed) for seed in range(9)]
    paths = [str(path) for path, _ in totals]
    (measured,) = read_measurements(paths, {}, "task").by_tensor_parallel.values()
    assert len(measured) <= 4000 < 5400
    found = measured.rows @ fitted_us(fit_steps(measured, "affine"), measured)
    assert found == pytest.approx(sum(total for _, total in totals), rel=0.01)


def test_several_logs_of_steps_are_one_and_their_faults_name_the_file(tmp_path: Path) -> None:
    first, second = steps(tmp_path, "a.csv")[0], steps(tmp_path, "b.csv", seed=1)[0]
    second.write_text(second.read_text() + "5,0,1,9,soon\n")
    text = calibrate(tmp_path, f"[{first},{second}]", "task.form=affine")
    assert "1,200 of 1,201 rows" in " ".join(text.split())
    assert f"{second}:602" in text.replace("\n    ", "")
    second.write_text("decodes,time_us\n1,2\n")
    with pytest.raises(ConfigError, match=r"its columns are not those of .*decode_context"):
        calibrate(tmp_path, f"[{first},{second}]", "task.name=other")


def test_slopes_that_few_steps_determine_are_held_and_named_in_calibrate_and_validate(tmp_path: Path) -> None:
    path, _ = steps(tmp_path, "steps.csv", past=3)
    rows = path.read_text().splitlines()
    slow = [",".join([*row.split(",")[:4], "900000"]) for row in rows[1:4]]  # 0.9 s, of 5,000 computed tokens
    path.write_text("\n".join([rows[0], *slow, *rows[4:]]) + "\n")
    text = " ".join(calibrate(tmp_path, str(path), "task.form=affine").split())
    assert "slopes that few measured steps determine: computed tokens of prompts (3 steps" in text
    entry = yaml.safe_load((tmp_path / "mine/cost/calibrated.yaml").read_text())["fits"][1]
    assert entry["per_past_us"] <= 900_000 / 5_000 * 1.1
    run = read_description(CASES / "vllm_bench.json")
    folder = f"hydra.searchpath=[{(tmp_path / 'mine').as_uri()}]"
    compared = compare(run, ["pipeline=llm", "cost=calibrated", folder])
    assert "computed tokens of prompts (3 steps" in " ".join(validation_table([compared], {}).split())


def test_the_ingest_time_is_fitted_to_a_log_beside_the_steps(tmp_path: Path) -> None:
    work = ["workload=synthetic", "workload.requests=200", "workload.output_tokens=30"]
    config = hf.compose(["pipeline=llm", "hardware.engine.ingest_ms=35", *work, "output.steps=true"])
    result = hf.simulate(hf.compile(config))
    result.write(tmp_path / "served")
    columns = ("arrival_s", "input_tokens", "output_tokens", "ttft_s", "e2e_s")
    result.requests.select(columns).write_csv(tmp_path / "log.csv")
    log = f"task.requests={tmp_path / 'log.csv'}"
    text = calibrate(
        tmp_path, str(tmp_path / "served/steps.parquet"), log, "task.form=affine", "pipeline=llm"
    )
    assert "by the mean TTFT of 200 requests" in " ".join(text.split())
    entry = yaml.safe_load((tmp_path / "mine/cost/calibrated.yaml").read_text())
    assert entry["ingest_ms"] == pytest.approx(35, abs=1)


def test_the_cost_of_one_pool_is_fitted_in_a_cluster_of_many(tmp_path: Path) -> None:
    path, _ = steps(tmp_path, "steps.csv")
    models = "workload.models={llama3_8b: 0.5, llama3_70b: 0.5}"
    text = calibrate(tmp_path, str(path), "cluster=two_models", models, "task.pool=small", "task.form=affine")
    assert "+cost@cluster.pools.small.cost=calibrated" in text
    given = ["cluster=two_models", models, "workload.requests=5", "+cost@cluster.pools.small.cost=calibrated"]
    program = hf.compile(hf.compose(given, config_dir=tmp_path / "mine"))
    costs = {pool.name: " ".join(getattr(pool, "notes", ())) for pool in program.pools}
    assert "regression: " in costs["small"]
    assert "regression: " not in costs["large"]
    with pytest.raises(ConfigError, match=r"task\.pool: 'smal' is no LLM pool; did you mean 'small'"):
        calibrate(tmp_path, str(path), "cluster=two_models", models, "task.pool=smal", "task.name=b")


def test_a_benchmark_log_of_20_requests_is_fitted_and_carried_to_another_gpu(tmp_path: Path) -> None:
    log = str(CASES / "vllm_bench.json")
    text = calibrate(tmp_path, log, "pipeline=llm", "task.name=mine", "task.carry_to=h200_sxm")
    assert "from 20 requests" in " ".join(text.split())
    assert "determine these figures only loosely" in text
    own, carried = (
        yaml.safe_load((tmp_path / f"mine/hardware/{name}.yaml").read_text())
        for name in ("mine", "mine_h200_sxm")
    )
    assert carried["defaults"][0] == "h200_sxm"
    for figure in ("step_us", "sequence_us", "ingest_ms"):
        assert carried["engine"][figure] == own["engine"][figure]
    errors = json.loads((tmp_path / "run/summary.json").read_text())["calibration"]["errors"]
    assert errors["tpot"]["fit"] < errors["tpot"]["before"]
    used = hf.compose(
        ["pipeline=llm", "hardware=mine_h200_sxm", "workload.requests=5"], config_dir=tmp_path / "mine"
    )
    assert hf.simulate(hf.compile(used)).summary["requests"]["completed"] == 5


def test_several_logs_of_requests_are_fitted_together(tmp_path: Path) -> None:
    log = CASES / "vllm_bench.json"
    text = calibrate(tmp_path, f"[{log},{log}]", "pipeline=llm", "task.name=twice")
    assert "from 40 requests" in " ".join(text.split())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["task.carry_to=h200_sxm"], "task.carry_to: does not go with task.fit=regression; it needs engine"),
        (["task.fit=hybrid", "task.requests=log.csv"], "task.requests: does not go with task.fit=hybrid"),
    ],
)
def test_keys_that_do_not_go_with_a_fit_are_refused(
    overrides: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        calibrate(tmp_path, str(steps(tmp_path, "steps.csv")[0]), *overrides)


def test_an_unknown_gpu_to_carry_to_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"task\.carry_to: 'h200_smx' is no hardware; did you mean 'h200_sxm'"
    ):
        calibrate(tmp_path, str(CASES / "vllm_bench.json"), "pipeline=llm", "task.carry_to=h200_smx")
