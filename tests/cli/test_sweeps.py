from __future__ import annotations

import re
import signal
import subprocess
import time
from pathlib import Path

import polars as pl
import pytest
from cli.command import LONGEST_S, Finished, hermes_flow, in_background, in_this_process, wait_for

# A shell reports 130 for both. Python ends by the signal itself where it struck inside a module's exec().
INTERRUPTED = (130, -signal.SIGINT)


@pytest.fixture(scope="module")
def cwd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sweeps")


@pytest.fixture(scope="module")
def sweep(cwd: Path) -> Finished:
    """Four jobs over a number, a name and a truth value."""
    return hermes_flow(
        cwd,
        "-m",
        "workload.requests=3",
        "workload.rate_per_s=2,2.5",
        "cluster.routing=round_robin,random",
        "output.steps=true",
    )


@pytest.fixture(scope="module")
def broken(cwd: Path) -> Finished:
    """Four jobs of which the second has a wrong value and the third cannot be compiled."""
    return in_this_process(cwd, "-m", "simulate", "workload.requests=3,x,3e18,4", "hydra.sweep.dir=broken")


def table(cwd: Path, done: Finished) -> pl.DataFrame:
    return pl.read_parquet(cwd / done.folder / "sweep.parquet")


def test_a_sweep_has_a_folder_per_job_and_one_table(sweep: Finished, cwd: Path) -> None:
    assert (sweep.status, sweep.err) == (0, "")
    folder = cwd / sweep.folder
    assert {path.name for path in folder.iterdir()} == {
        *("0", "1", "2", "3"),
        *("jobs.json", "multirun.yaml", "sweep.parquet"),
    }
    for job in range(4):
        assert (folder / str(job) / "summary.json").is_file()
        assert (folder / str(job) / ".hydra" / "overrides.yaml").is_file()


def test_overrides_are_columns_of_their_types(sweep: Finished, cwd: Path) -> None:
    frame = table(cwd, sweep)
    assert frame.columns[:7] == [
        "job",
        "workload.requests",
        "workload.rate_per_s",
        "cluster.routing",
        "output.steps",
        "status",
        "error",
    ]
    assert frame.schema["workload.requests"] == pl.Int64
    assert frame.schema["workload.rate_per_s"] == pl.Float64
    assert frame.schema["cluster.routing"] == pl.String
    assert frame.schema["output.steps"] == pl.Boolean
    assert frame["workload.rate_per_s"].to_list() == [2.0, 2.0, 2.5, 2.5]
    assert frame["cluster.routing"].to_list() == ["round_robin", "random"] * 2
    assert frame["requests.completed"].to_list() == [3, 3, 3, 3]
    assert frame["ttft_s.p99"].dtype == pl.Float64
    assert frame["ttft_s.p99"].null_count() == 0


def test_a_sweep_prints_a_line_per_job_and_one_table(sweep: Finished) -> None:
    lines = sweep.out.splitlines()
    assert [line for line in lines if " done (" in line] == lines[:4]
    assert lines[0] == "job 0 done (1 of 4): rate_per_s=2 routing=round_robin"
    assert re.fullmatch(r"job 1 done \(2 of 4, about \d+ \w+ left\): rate_per_s=2 routing=random", lines[1])
    assert lines[3] == "job 3 done (4 of 4): rate_per_s=2.5 routing=random"
    assert max(len(line) for line in lines) <= 80


def test_one_failing_job_does_not_take_the_others_with_it(broken: Finished, cwd: Path) -> None:
    frame = table(cwd, broken)
    assert frame["status"].to_list() == ["completed", "failed", "failed", "completed"]
    assert frame["requests.completed"].to_list() == [3, None, None, 4]
    assert frame["error"].to_list()[1] == "workload.requests: 'x' is not an integer"
    assert frame["workload.requests"].to_list() == ["3", "x", "3e+18", "4"]


def test_failed_jobs_are_listed_with_their_errors_and_the_status_is_1(broken: Finished) -> None:
    assert broken.status == 1
    assert broken.err == ""
    assert "left): requests=x: workload.requests: 'x' is not an integer" in " ".join(broken.out.split())
    assert "2 of 4 jobs failed:\n  1: workload.requests: 'x' is not an integer\n" in broken.out
    assert "Traceback" not in broken.out


def test_the_error_of_a_job_lies_in_its_folder(broken: Finished, cwd: Path) -> None:
    text = (cwd / broken.folder / "1" / "error.txt").read_text()
    assert text == "workload.requests: 'x' is not an integer\n"
    assert not (cwd / broken.folder / "0" / "error.txt").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "model=llama3_8b,lama3_8b",
            "hermes-flow: model: there is no 'lama3_8b'; did you mean 'llama3_8b'?\n",
        ),
        ("workload.request=1,2", "hermes-flow: workload.request: unknown key; did you mean 'requests'?\n"),
        ("sweep=foo", "hermes-flow: sweep: 'foo' is not a mapping; expected the keys resume, zip\n"),
        (
            "cluster.pools.llm={count:1},{conut:2}",
            "hermes-flow: cluster.pools.llm.conut: unknown key; did you mean 'count'? (in the\n"
            "  jobs with cluster.pools.llm={conut:2})\n",
        ),
    ],
)
def test_a_mistake_in_every_job_is_found_before_the_first_runs(
    override: str, message: str, cwd: Path
) -> None:
    assert in_this_process(cwd, "-m", override) == Finished(1, "", message)


def test_a_key_that_only_some_choices_have_is_refused_with_the_choice(cwd: Path) -> None:
    done = in_this_process(cwd, "-m", "cluster=replicas,disaggregated", "cluster.pools.prefill.count=1,2")
    said = (
        "cluster.pools.prefill: unknown key; expected one of: host, llm (in the jobs with cluster=replicas)"
    )
    assert (done.status, done.out, " ".join(done.err.split())) == (1, "", f"hermes-flow: {said}")


@pytest.mark.parametrize(
    ("given", "key"), [((), "hydra.run.dir"), (("-m", "workload.requests=1,2"), "hydra.sweep.dir")]
)
def test_a_folder_that_cannot_be_written_is_named_with_the_key_of_another(
    given: tuple[str, ...], key: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    done = in_this_process(tmp_path, *given, f"{key}=file/run")
    said = f"file/run: cannot be written: Not a directory; {key}=… names another folder"
    assert (done.status, done.out, " ".join(done.err.split())) == (1, "", f"hermes-flow: {said}")


def test_a_sweep_without_jobs_says_so(cwd: Path) -> None:
    empty = in_this_process(cwd, "-m", "experiment=glob(nothing_*)")
    assert empty.status == 1
    assert "the sweep has no jobs; a glob(…) among its overrides matches no" in empty.err


def test_a_sweep_of_a_verb_without_figures_succeeds(cwd: Path) -> None:
    done = in_this_process(cwd, "-m", "compile", "model=llama3_8b,llama3_70b", "workload.requests=3")
    assert done.status == 1
    frame = table(cwd, done)
    assert frame["status"].to_list() == ["completed", "failed"]
    assert "the weights of llama3_70b (bf16) take 141.1 GB" in frame["error"][1]


def test_an_experiment_may_hold_a_sweep(tmp_path: Path) -> None:
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    (tmp_path / "own" / "experiment" / "rates.yaml").write_text(
        "# @package _global_\nworkload:\n  requests: 3\nhydra:\n  sweeper:\n    params:\n"
        "      workload.rate_per_s: 1,2\n"
    )
    done = in_this_process(tmp_path, "-m", "--config-dir", "own", "experiment=rates")
    assert (done.status, done.err) == (0, "")
    assert table(tmp_path, done)["workload.rate_per_s"].to_list() == [1, 2]


def interrupted(process: subprocess.Popen[str], folder: Path) -> tuple[str, str]:
    """Press Ctrl-C when a job has begun in ``folder``, and return what the command printed."""
    wait_for(folder / ".hydra" / "overrides.yaml", process)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    printed = process.communicate(timeout=LONGEST_S)
    assert process.returncode in INTERRUPTED
    return printed


def test_ctrl_c_in_a_single_run_is_no_traceback(tmp_path: Path) -> None:
    process = in_background(tmp_path, "workload.requests=1000000", "hydra.run.dir=cut")
    out, err = interrupted(process, tmp_path / "cut")
    assert (out, err) == ("", "hermes-flow: interrupted\n")
    assert not (tmp_path / "cut").exists()
