"""A sweep that was stopped, however that happened, is finished later: no finished job is lost or runs again."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import polars as pl
import pytest
from cli.command import LONGEST_S, hermes_flow, in_background, in_this_process, plugins_forgotten, wait_for

from hermes_flow.runs.folder_lock import FolderLock

SMALL = ("-m", "workload=synthetic", "workload.requests=3")
SWEEP = (*SMALL, "workload.rate_per_s=1,2,4,8", "hydra.sweep.dir=mine")
JOBLIB = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """What the plug-in of a test registers is forgotten when the test is over."""
    with plugins_forgotten():
        yield


def table(cwd: Path) -> pl.DataFrame:
    return pl.read_parquet(cwd / "mine" / "sweep.parquet")


def ends(folder: Path) -> dict[str, int]:
    """When each finished job ended."""
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("*/job.json")}


def unfinished(job: Path) -> None:
    """Leave of a job what a killed process leaves: some of its files, and one half written."""
    (job / "job.json").unlink()
    (job / "summary.json").unlink()
    (job / ".stages.parquet.99.part").write_text("half")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cwd = tmp_path_factory.mktemp("first")
    assert in_this_process(cwd, *SWEEP).status == 0
    return cwd / "mine"


@pytest.fixture
def finished(first: Path, tmp_path: Path) -> Path:
    """The folder in which a sweep of its own has ended in ``mine``."""
    shutil.copytree(first, tmp_path / "mine")
    return tmp_path


def test_only_jobs_without_a_result_run_again(finished: Path) -> None:
    unfinished(finished / "mine" / "1")
    (finished / "mine" / "3" / "job.json").write_text("{broken")
    before, whole = ends(finished / "mine"), table(finished)
    (finished / "mine" / "sweep.parquet").unlink()
    resumed = in_this_process(finished, *SWEEP, "sweep.resume=true")
    assert resumed.status == 0
    assert resumed.out.count(" done (") == 2
    after = ends(finished / "mine")
    assert [job for job in sorted(after) if after[job] == before.get(job)] == ["0", "2"]
    assert (
        table(finished)
        .drop("engine.wall_s", "engine.cpu_s")
        .equals(whole.drop("engine.wall_s", "engine.cpu_s"))
    )
    assert not list((finished / "mine").rglob("*.part"))


def test_a_finished_sweep_has_nothing_left_to_run(finished: Path) -> None:
    before = ends(finished / "mine")
    resumed = in_this_process(finished, *SWEEP, "sweep.resume=true")
    assert (resumed.status, resumed.out.count(" done (")) == (0, 0)
    assert ends(finished / "mine") == before


def test_resuming_begins_a_sweep_that_was_not_begun(tmp_path: Path) -> None:
    assert in_this_process(tmp_path, *SMALL, "hydra.sweep.dir=mine", "sweep.resume=true").status == 0
    assert len(table(tmp_path)) == 1


def test_a_used_folder_is_refused(finished: Path) -> None:
    before = ends(finished / "mine")
    refused = in_this_process(finished, *SWEEP)
    assert refused.status == 1
    assert " ".join(refused.err.split()).startswith(
        "hermes-flow: mine: holds the result of a sweep; sweep.resume=true finishes it, output.overwrite=true"
    )
    assert in_this_process(finished, "workload.requests=3", "hydra.run.dir=mine").status == 1
    assert ends(finished / "mine") == before


def test_overwriting_removes_every_job_of_the_old_sweep(finished: Path) -> None:
    (finished / "mine" / "0" / "error.txt").write_text("stale")
    again = in_this_process(finished, *SMALL, "seed=1", "hydra.sweep.dir=mine", "output.overwrite=true")
    assert again.status == 0
    assert table(finished)["status"].to_list() == ["completed"]
    assert {path.name for path in (finished / "mine").iterdir()} == {
        *("0", "jobs.json", "multirun.yaml", "sweep.parquet")
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            ["workload.rate_per_s=1,2,5,8"],
            "its job 2 is workload.rate_per_s=4, and here it is workload.rate_per_s=5",
        ),
        (["workload.rate_per_s=1,2,4"], "it has 4 jobs, and this one has 3"),
        (["seed=7"], "its job 0 is the job without them, and here it is seed=7"),
    ],
)
def test_the_folder_of_another_sweep_is_refused(change: list[str], said: str, finished: Path) -> None:
    before = {path: path.read_bytes() for path in (finished / "mine").rglob("*") if path.is_file()}
    refused = in_this_process(finished, *SWEEP, *change, "sweep.resume=true")
    assert refused.status == 1
    assert f"holds the result of another sweep: {said}" in " ".join(refused.err.split())
    assert {path: path.read_bytes() for path in (finished / "mine").rglob("*") if path.is_file()} == before


def test_a_changed_file_makes_it_another_sweep(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("arrival_s,input_tokens,output_tokens\n0.0,512,64\n")
    own = tmp_path / "own" / "slo"
    own.mkdir(parents=True)
    (own / "quick.yaml").write_text("name: quick\nttft_ms: {p99: 100}\n")
    given = ("-m", "--config-dir=own", "workload=trace", "workload.path=trace.csv", "slo=none,quick")
    resumed = (*given, "hydra.sweep.dir=mine", "sweep.resume=true")
    assert in_this_process(tmp_path, *resumed).status == 0
    before = ends(tmp_path / "mine")
    (own / "unused.yaml").write_text("name: unused\n")
    assert in_this_process(tmp_path, *resumed).status == 0
    assert ends(tmp_path / "mine") == before
    trace.write_text("arrival_s,input_tokens,output_tokens\n0.0,512,65\n0.5,512,64\n")
    assert "configuration of its job 0, or a file" in " ".join(
        in_this_process(tmp_path, *resumed).err.split()
    )
    unfinished(tmp_path / "mine" / "0")
    unfinished(tmp_path / "mine" / "1")
    assert in_this_process(tmp_path, *resumed).status == 0
    (own / "quick.yaml").write_text("name: quick\nttft_ms: {p99: 200}\n")
    assert "configuration of its job 1, or a file" in " ".join(
        in_this_process(tmp_path, *resumed).err.split()
    )


def test_a_job_whose_first_process_still_runs_does_not_run_twice(finished: Path) -> None:
    """A worker may outlive a killed command. Its lock is waited for, and its result is taken."""
    import threading

    unfinished(finished / "mine" / "1")
    record = (finished / "mine" / "0" / "job.json").read_text()
    lock = FolderLock(finished / "mine" / "1")
    lock.__enter__()
    digest = json.loads(record)["digest"]

    def end() -> None:
        from hermes_flow.runs.job import identity_of
        from hermes_flow.runs.job_record import JobRecord

        folder = finished / "mine" / "1"
        (folder / "summary.json").write_text('{"by": "the worker"}\n')
        JobRecord("completed", identity_of(folder, None).digest, {}).write(folder)  # type: ignore[arg-type]
        lock.__exit__(None, None, None)

    worker = threading.Timer(1.0, end)
    worker.start()
    assert in_this_process(finished, *SWEEP, "sweep.resume=true").status == 0
    worker.join()
    assert digest != json.loads((finished / "mine" / "1" / "job.json").read_text())["digest"]
    assert (finished / "mine" / "1" / "summary.json").read_text() == '{"by": "the worker"}\n'


def test_keys_that_are_zipped_vary_together(tmp_path: Path) -> None:
    given = (
        *SMALL,
        "workload.rate_per_s=1,2",
        "seed=0,1",
        "cluster.pools.llm.count=1,2",
        "hydra.sweep.dir=mine",
    )
    zipped = "sweep.zip=[cluster.pools.llm.count,workload.rate_per_s]"
    assert in_this_process(tmp_path, *given, zipped).status == 0
    assert table(tmp_path).select("workload.rate_per_s", "seed", "cluster.pools.llm.count").rows() == [
        (1, 0, 1),
        (1, 1, 1),
        (2, 0, 2),
        (2, 1, 2),
    ]


@pytest.mark.parametrize(
    ("zipped", "said"),
    [
        ("[workload.rate_per_s,seed]", "equally many values, but workload.rate_per_s has 4, seed has 1"),
        ("[workload.rate_per_s,hardware]", "'hardware' has no values"),
        ("[workload.rate_per_s]", "'workload.rate_per_s' is alone; two keys or more vary together"),
        ("[[seed,workload.rate_per_s],[seed,hardware]]", "'seed' is there 2 times; expected once"),
        ("seed", "'seed' is not a list; expected keys, as in [model,hardware]"),
    ],
)
def test_what_cannot_be_zipped_is_refused(zipped: str, said: str, tmp_path: Path) -> None:
    refused = in_this_process(tmp_path, *SWEEP, "seed=1", f"sweep.zip={zipped}")
    assert refused.status == 1
    assert f"hermes-flow: sweep.zip: {said}" in " ".join(
        refused.err.replace("keys that vary together need ", "").split()
    )
    assert list(tmp_path.iterdir()) == []


# Arrivals that are not drawn before there is a file "go", except in the first jobs of a sweep.
WAITING = """
import time
from pathlib import Path
import numpy as np
from hydra.core.hydra_config import HydraConfig
from hermes_flow.workload.arrivals.process import arrival_processes, at_mean_rate

@arrival_processes.register("waiting")
class Waiting:
    def check(self, key):
        pass

    def instants_s(self, requests, rate_per_s, rng):
        return np.arange(requests) / rate_per_s

    def arrivals(self, load, rng):
        while HydraConfig.get().job.num >= 3 and not Path("go").exists():
            time.sleep(0.02)
        return at_mean_rate(self, load, rng)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_sweep_over_processes_goes_on_after(how: signal.Signals, tmp_path: Path) -> None:
    """Ctrl-C goes to all processes of the group, and kill -9 to the command alone, whose workers live on."""
    (tmp_path / "waits.py").write_text(WAITING)
    given = (*SWEEP, "workload.requests=3,4", "plugins=[waits.py]", "workload.arrivals=waiting")
    with (tmp_path / "err.txt").open(
        "w"
    ) as file:  # not a pipe, which the workers that live on would keep open
        process = in_background(tmp_path, *given, *JOBLIB, start_new_session=True, stdout=file, stderr=file)
    wait_for(tmp_path / "mine" / "0" / "job.json", process)
    (os.killpg if how == signal.SIGINT else os.kill)(process.pid, how)
    process.wait(timeout=LONGEST_S)
    err = (tmp_path / "err.txt").read_text()
    assert process.returncode == (130 if how == signal.SIGINT else -how)
    before = ends(tmp_path / "mine")
    assert 1 <= len(before) < 8
    (tmp_path / "go").touch()
    if how == signal.SIGINT:
        assert "hydra.sweep.dir=mine sweep.resume=true runs the others" in " ".join(err.split())
        assert "Traceback" not in err
        assert set(before) <= {str(job) for job in table(tmp_path)["job"]}
    assert in_this_process(tmp_path, *given, "sweep.resume=true").status == 0  # by another launcher
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    after = ends(tmp_path / "mine")
    assert {job: after[job] for job in before} == before
    assert table(tmp_path)["status"].to_list() == ["completed"] * 8
    assert table(tmp_path)["workload.rate_per_s"].to_list() == [1, 2, 4, 8] * 2


def test_a_terminated_sweep_has_its_table_and_goes_on(tmp_path: Path) -> None:
    given = (*SMALL, "seed=0,1,2", "workload.requests=3,1000000", "hydra.sweep.dir=mine")
    process = in_background(tmp_path, *given)
    wait_for(tmp_path / "mine" / "1" / ".hydra" / "overrides.yaml", process)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=LONGEST_S)
    assert process.returncode == 128 + signal.SIGTERM
    assert err.startswith("hermes-flow: terminated; 1 of 6 jobs are finished;")
    assert table(tmp_path)["status"].to_list() == ["completed", "interrupted"]
    # The signal may come between Hydra's folder for the job and the job itself.
    assert table(tmp_path)["error"][1] in ("interrupted", "the job did not end")
    assert "1 of 2 jobs did not end, as they were interrupted: 1" in out
    assert "failed" not in out


def test_a_full_disk_fails_jobs_that_run_again_later(tmp_path: Path) -> None:
    """A limit on the size of files stands for a disk without room."""

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    given = ("-m", "workload=synthetic", "workload.requests=3,2000,4", "hydra.sweep.dir=mine")
    process = in_background(tmp_path, *given, preexec_fn=small_files)
    _, err = process.communicate(timeout=LONGEST_S)
    assert (process.returncode, err) == (1, "")
    assert table(tmp_path)["status"].to_list() == ["completed", "failed", "completed"]
    error = table(tmp_path)["error"][1]
    assert "cannot be written" in error
    assert "File too large" in error
    before = ends(tmp_path / "mine")
    assert in_this_process(tmp_path, *given, "sweep.resume=true").status == 0
    assert table(tmp_path)["status"].to_list() == ["completed"] * 3
    assert {job for job, end in ends(tmp_path / "mine").items() if end == before[job]} == {"0", "2"}


def test_a_worker_that_dies_ends_the_sweep_with_its_table(tmp_path: Path) -> None:
    (tmp_path / "dies.py").write_text(
        "import os\n"
        "from pathlib import Path\n"
        "from hydra.core.hydra_config import HydraConfig\n"
        "if HydraConfig.get().job.num == 1 and not Path('once').exists():\n"
        "    Path('once').touch()\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    given = (*SMALL, "seed=0,1,2", "hydra.sweep.dir=mine", "plugins=[dies.py]")
    done = hermes_flow(tmp_path, *given, *JOBLIB, "hydra.launcher.batch_size=1")  # no job in this process
    assert done.status == 1
    assert done.err.startswith("hermes-flow: the launcher joblib stopped: TerminatedWorkerError: ")
    assert "Traceback" not in done.err
    assert "the job did not end" in table(tmp_path)["error"].to_list()
    assert in_this_process(tmp_path, *given, "sweep.resume=true").status == 0
    assert table(tmp_path)["status"].to_list() == ["completed"] * 3
