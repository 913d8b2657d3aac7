"""``hermes-flow report`` finds the newest result, writes the page that belongs to it, and explains other folders."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli.command import environment, hermes_flow, in_this_process
from report.page_reading import read_page

from hermes_flow.errors import HermesFlowError
from hermes_flow.report.pages.folder import newest_result, write_report

SMALL = ("workload.requests=30", "pipeline=llm")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a run with a report and a sweep of two jobs lie below outputs."""
    place = tmp_path_factory.mktemp("place")
    done = in_this_process(place, *SMALL, "output.report=true", "hydra.run.dir=outputs/run")
    assert done.status == 0, done.err
    sweep = ("workload.rate_per_s=2,4", "output.report=true", "hydra.sweep.dir=outputs/day/cards")
    done = in_this_process(place, "-m", *SMALL, *sweep)
    assert done.status == 0, done.err
    assert "Written to outputs/day/cards: sweep.parquet, sweep.html and the jobs" in done.out
    return place


def test_output_report_writes_the_page_of_a_run_of_a_sweep_and_of_its_jobs(place: Path) -> None:
    outputs = place / "outputs"
    assert (
        "The SLO chat is met."
        in read_page((outputs / "run" / "report.html").read_text(encoding="utf-8")).text
    )
    sweep = read_page((outputs / "day" / "cards" / "sweep.html").read_text(encoding="utf-8"))
    assert sorted(sweep.links) == ["0/report.html", "1/report.html"]


def test_without_a_folder_the_newest_result_is_shown_and_nothing_else_is_written(place: Path) -> None:
    sweep = place / "outputs" / "day" / "cards"
    (sweep / "sweep.html").unlink()
    (sweep / "sweep.parquet").unlink()
    before = {path for path in place.rglob("*") if path.is_dir()}
    done = hermes_flow(place, "report")
    assert done.status == 0, done.err
    assert "Written to outputs/day/cards/sweep.html" in done.out
    assert "rate_per_s" in done.out
    assert (sweep / "sweep.parquet").exists()
    assert {path for path in place.rglob("*") if path.is_dir() and "outputs/20" not in str(path)} == before


def test_a_page_of_a_run_is_made_from_its_files(place: Path) -> None:
    path = place / "outputs" / "run" / "report.html"
    path.unlink()
    assert write_report(path.parent) == path
    page = read_page(path.read_text(encoding="utf-8"))
    assert "workload.requests=30" in page.text
    assert len(page.charts) > 5


def test_the_newest_result_is_found_by_time_and_not_by_name(place: Path, tmp_path: Path) -> None:
    for name, age in (("b", 10), ("a", 5), ("2026-01-01/c", 20)):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "summary.json").write_text("{}", encoding="utf-8")
        os.utime(folder / "summary.json", (1e9 - age, 1e9 - age))
    assert newest_result(tmp_path) == tmp_path / "a"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "has no summary.json; expected the folder of a finished run"),
        ({"summary.json": "[1"}, "summary.json: cannot be read"),
        ({"summary.json": "[]"}, "is not the summary of a run"),
        ({"summary.json": '{"validation": {}}'}, "validation.html is the page of a validation"),
        ({"summary.json": '{"requests": {}}', "requests.parquet": "no"}, "requests.parquet: cannot be read"),
        (
            {"summary.json": '{"requests": {}, "slo": {}}'},
            "has no 'ttft_s', .*another version of hermes_flow",
        ),
    ],
)
def test_folders_without_a_result_are_explained(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(HermesFlowError, match=message):
        write_report(tmp_path)


def test_a_missing_folder_and_no_result_at_all_are_explained(tmp_path: Path) -> None:
    with pytest.raises(HermesFlowError, match="there is no such folder"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(HermesFlowError, match="holds no run, sweep or plan"):
        newest_result(tmp_path)


def test_two_folders_are_one_too_many(tmp_path: Path) -> None:
    done = in_this_process(tmp_path, "report", "a", "b")
    assert done.status == 2
    assert "'b' is one word too many; expected hermes-flow report FOLDER" in done.err


def test_a_run_without_a_report_loads_nothing_that_draws(tmp_path: Path) -> None:
    code = (
        "import sys; from hermes_flow.cli import main; main(['workload.requests=5', 'hydra.run.dir=run']);"
        "sys.exit(bool({'altair', 'vl_convert', 'hermes_flow.report.pages'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment(), check=False)
    assert done.returncode == 0
