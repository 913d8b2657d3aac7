from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
from cli.command import in_this_process

SMALL = ("workload=synthetic", "workload.requests=3")


def config_of(folder: Path) -> Any:
    import yaml  # type: ignore[import-untyped]

    return yaml.safe_load((folder / ".hydra" / "config.yaml").read_text())


def test_an_slo_given_as_a_mapping_has_no_bounds_of_the_one_before(tmp_path: Path) -> None:
    slo = "slo={name: ours, ttft_ms: {p99: 2000}, tpot_ms: {p90: 50}}"
    done = in_this_process(tmp_path, *SMALL, slo, "slo.ttft_ms.p90=1500")
    assert (done.status, done.err) == (0, "")
    bounds = json.loads((tmp_path / done.folder / "summary.json").read_text())["slo"]["bounds"]
    assert set(bounds) == {"ttft_p99_s", "ttft_p90_s", "tpot_p90_s"}


def test_a_sweep_over_mappings_gives_each_job_its_own(tmp_path: Path) -> None:
    arrivals = "workload.arrivals={process: gamma, cv: 2},{process: burst, on_s: 5, off_s: 20}"
    slo = "slo={ttft_ms: {p99: 2000}},{tpot_ms: {p50: 50}}"
    done = in_this_process(tmp_path, "-m", *SMALL, arrivals, slo, "slo.e2e_ms.p90=9000")
    assert (done.status, done.err) == (0, "")
    given = [config_of(tmp_path / done.folder / str(job)) for job in range(4)]
    gamma, burst = {"process": "gamma", "cv": 2}, {"process": "burst", "on_s": 5, "off_s": 20}
    assert [config["workload"]["arrivals"] for config in given] == [gamma, gamma, burst, burst]
    assert given[0]["slo"] == {"name": "custom", "ttft_ms": {"p99": 2000}, "e2e_ms": {"p90": 9000}}
    assert given[1]["slo"] == {"name": "custom", "tpot_ms": {"p50": 50}, "e2e_ms": {"p90": 9000}}
    table = pl.read_parquet(tmp_path / done.folder / "sweep.parquet")
    assert table["slo"].to_list() == ["{ttft_ms:{p99:2000}}", "{tpot_ms:{p50:50}}"] * 2


def test_a_launcher_of_other_processes_replaces_mappings_as_well(tmp_path: Path) -> None:
    slo = "slo={ttft_ms: {p99: 2000}},{tpot_ms: {p50: 50}}"
    done = in_this_process(
        tmp_path, "-m", "compile", *SMALL, slo, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"
    )
    assert done.status == 0, done.err
    given = [config_of(tmp_path / done.folder / str(job))["slo"] for job in range(2)]
    assert given == [{"name": "custom", "ttft_ms": {"p99": 2000}}, {"name": "custom", "tpot_ms": {"p50": 50}}]


def test_a_sweep_in_an_experiment_file_may_go_over_mappings(tmp_path: Path) -> None:
    experiment = tmp_path / "conf" / "experiment" / "mine.yaml"
    experiment.parent.mkdir(parents=True)
    experiment.write_text(
        "# @package _global_\n"
        "workload: {arrivals: {process: gamma, cv: 2}}\n"
        'hydra: {sweeper: {params: {workload.input_tokens: "{distribution: fixed, value: 5},7"}}}\n'
    )
    done = in_this_process(tmp_path, "-m", "compile", *SMALL, "experiment=mine", "--config-dir", "conf")
    assert (done.status, done.err) == (0, "")
    given = [config_of(tmp_path / done.folder / str(job))["workload"] for job in range(2)]
    assert [entry["input_tokens"] for entry in given] == [{"distribution": "fixed", "value": 5}, 7]
    assert [entry["arrivals"] for entry in given] == [{"process": "gamma", "cv": 2}] * 2
