"""Sweeps over other launchers are finished as those over the built-in one (nox -s launchers installs them all)."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import polars as pl
import pytest
from cli.command import hermes_flow, in_this_process

SWEEP = ("-m", "workload=synthetic", "workload.requests=3", "seed=0,1,2,x", "hydra.sweep.dir=mine")
PLUGINS = {"submitit_local": "hydra_submitit_launcher", "ray": "hydra_ray_launcher"}


@pytest.mark.parametrize("launcher", PLUGINS)
def test_a_launcher_runs_what_is_missing(launcher: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(f"hydra_plugins.{PLUGINS[launcher]}") is None:
        pytest.skip(f"the launcher {launcher} is not installed")
    local = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    done = hermes_flow(tmp_path, *SWEEP, f"hydra/launcher={launcher}", **local)
    assert done.status == 1
    assert done.out.count(" done (") == 3
    assert "seed: 'x' is not an integer" in done.out
    whole = pl.read_parquet(tmp_path / "mine" / "sweep.parquet")
    assert whole["status"].to_list() == ["completed"] * 3 + ["failed"]
    (tmp_path / "mine" / "1" / "job.json").unlink()
    kept = (tmp_path / "mine" / "0" / "job.json").stat().st_mtime_ns
    again = hermes_flow(tmp_path, *SWEEP, "sweep.resume=true", f"hydra/launcher={launcher}", **local)
    assert again.out.count(" done (") == 1
    assert (tmp_path / "mine" / "0" / "job.json").stat().st_mtime_ns == kept
    times = ("engine.wall_s", "engine.cpu_s")
    assert pl.read_parquet(tmp_path / "mine" / "sweep.parquet").drop(times).equals(whole.drop(times))


def test_a_launcher_that_cannot_start_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    submitit = pytest.importorskip("submitit")

    def start(*_: object, **__: object) -> None:
        raise RuntimeError("the node timed out")

    monkeypatch.setattr(submitit, "AutoExecutor", start)
    failed = in_this_process(tmp_path, *SWEEP, "hydra/launcher=submitit_local")
    assert failed.status == 1
    assert " ".join(failed.err.split()) == (
        "hermes-flow: the launcher submitit_local stopped: RuntimeError: the node timed out; no job has begun"
    )
    assert not list(tmp_path.iterdir())
