"""A sweep with the launcher joblib begins in one process; others take what is left when they are ready."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import polars as pl
import pytest

from hermes_flow.cli import main
from hermes_flow.tasks import parallel_jobs
from hermes_flow.tasks.parallel_jobs import Job, Jobs

SWEEP = ("-m", "workload=synthetic", "workload.requests=20", "seed=range(4)")
JOBLIB = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=3")


def test_other_processes_do_the_jobs_that_are_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing_here(jobs: Jobs) -> Job | None:
        while jobs._left:
            time.sleep(0.01)
        return None

    main([*SWEEP, f"hydra.sweep.dir={tmp_path / 'basic'}"])
    monkeypatch.setattr(parallel_jobs, "START_AFTER_S", 0.0)
    monkeypatch.setattr(Jobs, "_take", nothing_here)
    main([*SWEEP, *JOBLIB, f"hydra.sweep.dir={tmp_path / 'joblib'}"])
    assert list(pl.read_parquet(tmp_path / "joblib" / "sweep.parquet")["status"]) == ["completed"] * 4
    for job in range(4):
        tables = [tmp_path / kind / str(job) / "stages.parquet" for kind in ("basic", "joblib")]
        assert tables[0].read_bytes() == tables[1].read_bytes()


def test_a_short_sweep_starts_no_other_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    monkeypatch.setattr(parallel_jobs, "START_AFTER_S", 60.0)
    monkeypatch.setattr(Jobs, "_start", lambda jobs, count: started.append(len(jobs._left)))
    main([*SWEEP, *JOBLIB, f"hydra.sweep.dir={tmp_path / 'joblib'}"])
    assert (tmp_path / "joblib" / "3" / "summary.json").is_file()
    assert not any(started)


def test_settings_of_joblib_itself_leave_the_jobs_to_it() -> None:
    assert not parallel_jobs._asks_for_more({"n_jobs": 7, "verbose": 0, "prefer": "processes"})
    assert parallel_jobs._asks_for_more({"n_jobs": 7, "verbose": 10})


def test_an_error_in_another_process_ends_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nothing_here(jobs: Jobs) -> Job | None:
        while jobs._left and jobs._failure is None:
            time.sleep(0.01)
        return None

    monkeypatch.setattr(parallel_jobs, "START_AFTER_S", 0.0)
    monkeypatch.setattr(parallel_jobs, "_get_ready", _broken)
    monkeypatch.setattr(Jobs, "_take", nothing_here)
    with pytest.raises(SystemExit) as left:
        main([*SWEEP, *JOBLIB, f"hydra.sweep.dir={tmp_path / 'joblib'}"])
    assert left.value.code == 1
    assert "no room" in capsys.readouterr().err
    assert threading.active_count() < 20


def _broken() -> None:
    raise RuntimeError("no room")
