"""Sweeps over other launchers are finished as those over the built-in one (nox -s launchers installs them all)."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import polars as pl
import pytest
from cli.command import Finished, hermes_flow, in_this_process

SWEEP = ("-m", "workload=synthetic", "workload.requests=3", "seed=0,1,2,x", "hydra.sweep.dir=mine")
PLUGINS = {"submitit_local": "hydra_submitit_launcher", "ray": "hydra_ray_launcher"}


RAY = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
TRIES = 6


def launched(folder: Path, launcher: str, *more: str) -> Finished:
    """Run the sweep; once more where Ray says that its own processes did not start in time.

    Ray 2 gives them 30 s, which is no setting of it and which a busy machine needs. Six tries wait three minutes. No
    job has begun until then, so the next try is the same sweep.
    """
    for _ in range(TRIES):
        done = hermes_flow(folder, *SWEEP, *more, f"hydra/launcher={launcher}", **RAY)
        if "timed out during startup" not in " ".join(done.err.split()):
            break
    return done


@pytest.mark.timeout(900)
@pytest.mark.parametrize("launcher", PLUGINS)
def test_a_launcher_runs_what_is_missing(launcher: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(f"hydra_plugins.{PLUGINS[launcher]}") is None:
        pytest.skip(f"the launcher {launcher} is not installed")
    done = launched(tmp_path, launcher)
    assert done.status == 1
    assert done.out.count(" done (") == 3
    assert "seed: 'x' is not an integer" in done.out
    whole = pl.read_parquet(tmp_path / "mine" / "sweep.parquet")
    assert whole["status"].to_list() == ["completed"] * 3 + ["failed"]
    (tmp_path / "mine" / "1" / "job.json").unlink()
    kept = (tmp_path / "mine" / "0" / "job.json").stat().st_mtime_ns
    again = launched(tmp_path, launcher, "sweep.resume=true")
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
