"""A multirun folder becomes one table, whatever became of its jobs."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from hermes_flow.errors import HermesFlowError
from hermes_flow.metrics.sweep import collect, write_sweep


def job(
    folder: Path, name: object, overrides: list[str], summary: object = None, error: str | None = None
) -> Path:
    """Write a job as Hydra and a run leave it."""
    path = folder / str(name)
    (path / ".hydra").mkdir(parents=True)
    (path / ".hydra" / "overrides.yaml").write_text("".join(f"- {entry}\n" for entry in overrides) or "[]\n")
    if summary is not None:
        (path / "summary.json").write_text(summary if isinstance(summary, str) else json.dumps(summary))
    if error is not None:
        (path / "error.txt").write_text(error)
    return path


def figures(ttft: float) -> dict:
    return {
        "ttft_s": {"mean": ttft, "p50": None},
        "engine": {"events": 5, "wall_s": 0.1, "cpu_s": 0.1},
        "slo": {"name": "chat", "bounds": {"ttft_p99_s": {"met": True}}},
        "warnings": [],
    }


def test_one_row_per_job_with_overrides_status_and_flattened_summary(tmp_path):
    job(tmp_path, 0, ["rate=4", "slo=chat"], figures(0.25))
    job(tmp_path, 1, ["rate=8", "slo=chat"], figures(0.5))
    frame = collect(tmp_path)
    assert frame.columns == [
        "job", "rate", "slo", "status", "error", "ttft_s.mean", "ttft_s.p50", "engine.events", "slo.name",
        "slo.bounds.ttft_p99_s.met", "warnings", "engine.wall_s", "engine.cpu_s",
    ]  # fmt: skip
    assert frame.row(1) == (1, 8, "chat", "completed", None, 0.5, None, 5, "chat", True, None, 0.1, 0.1)


def test_jobs_come_in_the_order_of_their_numbers(tmp_path):
    for number in (10, 2, 0, 1):
        job(tmp_path, number, [f"seed={number}"], figures(0.1))
    job(tmp_path, "rate=4", ["seed=9"], figures(0.1))
    frame = collect(tmp_path)
    assert frame["job"].to_list() == [0, 1, 2, 10, None]
    assert frame["seed"].to_list() == [0, 1, 2, 10, 9]


@pytest.mark.parametrize(
    ("texts", "values", "kind"),
    [
        (["1", "-20"], [1, -20], pl.Int64),
        (["4_000_000", "null"], [4_000_000, None], pl.Int64),
        (["1", "0.5"], [1.0, 0.5], pl.Float64),
        (["1e-3", "2"], [0.001, 2.0], pl.Float64),
        (["true", "False"], [True, False], pl.Boolean),
        (["h100_sxm", "l40s"], ["h100_sxm", "l40s"], pl.String),
        (["8", "auto", "true"], ["8", "auto", "true"], pl.String),
        (["'two words'", '"3"'], ["two words", "3"], pl.String),
        (["two\\ words", "a\\=b"], ["two words", "a=b"], pl.String),
        (["[1,2]", "{kind: poisson}"], ["[1,2]", "{kind: poisson}"], pl.String),
        (["007", "inf"], ["007", "inf"], pl.String),
        (["null", "null"], [None, None], pl.String),
        ([str(2**70), "1"], [str(2**70), "1"], pl.String),
        (["1" + "0" * 400, "1"], ["1" + "0" * 400, "1"], pl.String),
    ],
)
def test_overrides_are_typed_as_hydra_reads_them(tmp_path, texts, values, kind):
    for number, text in enumerate(texts):
        job(tmp_path, number, [json.dumps(f"key={text}")], figures(0.1))
    column = collect(tmp_path)["key"]
    assert column.to_list() == values
    assert column.dtype == kind


def test_a_job_without_an_override_has_null_for_it(tmp_path):
    job(tmp_path, 0, ["+a.b=1"], figures(0.1))
    job(tmp_path, 1, ["++c=x=y", "~d"], figures(0.1))
    assert collect(tmp_path).select("a.b", "c", "d").rows() == [(1, None, None), (None, "x=y", None)]


def test_a_failed_job_is_listed_with_its_error(tmp_path):
    job(tmp_path, 0, ["rate=4"], figures(0.1))
    job(tmp_path, 1, ["rate=8"], error="2 problems found:\n  - weights do not fit\n")
    frame = collect(tmp_path)
    assert frame["status"].to_list() == ["completed", "failed"]
    assert frame["error"].to_list() == [None, "2 problems found:\n  - weights do not fit"]
    assert frame["ttft_s.mean"].to_list() == [0.1, None]


@pytest.mark.parametrize(
    ("summary", "error", "status"),
    [
        ('{"ttft_s": {"mean"', "summary.json cannot be read: ", "failed"),
        ("[1, 2]", "summary.json cannot be read: it is not a mapping", "failed"),
        (None, "no summary.json: the job did not end", "interrupted"),
    ],
)
def test_a_broken_or_missing_summary_is_the_jobs_error(tmp_path, summary, error, status):
    job(tmp_path, 0, ["rate=4"], figures(0.1))
    job(tmp_path, 1, ["rate=8"], summary)
    frame = collect(tmp_path)
    assert frame["error"][1].startswith(error)
    assert frame["status"].to_list() == ["completed", status]
    assert frame["rate"].to_list() == [4, 8]


def test_a_job_that_was_stopped_halfway_is_interrupted_and_has_not_failed(tmp_path):
    (tmp_path / "jobs.json").write_text("{}")
    for number, text in enumerate(("completed", "failed")):
        error = "the weights do not fit\n" if text == "failed" else None
        folder = job(tmp_path, number, [f"rate={number}"], figures(0.1), error=error)
        (folder / "job.json").write_text("{}")
    job(tmp_path, 2, ["rate=2"], error="interrupted\n")  # by Ctrl-C; such a job writes no job.json
    job(tmp_path, 3, ["rate=3"])  # by kill -9
    job(tmp_path, 4, ["rate=4"], figures(0.1))  # also that, just before its last file
    frame = collect(tmp_path)
    assert frame["status"].to_list() == ["completed", "failed", *["interrupted"] * 3]
    assert frame["error"].to_list()[2:] == ["interrupted", *["the job did not end"] * 2]
    assert frame["ttft_s.mean"].to_list() == [0.1, *[None] * 4]


@pytest.mark.parametrize("text", ["- [", "a: 1", "- 1\n- 2"])
def test_broken_overrides_are_the_jobs_error(tmp_path, text):
    job(tmp_path, 0, ["rate=4"], figures(0.1))
    (job(tmp_path, 1, [], figures(0.1)) / ".hydra" / "overrides.yaml").write_text(text)
    frame = collect(tmp_path)
    assert frame["status"].to_list() == ["completed", "failed"]
    assert frame["error"][1].startswith(".hydra/overrides.yaml cannot be read: ")


def test_an_override_of_the_same_name_as_a_figure_is_kept_once(tmp_path):
    job(tmp_path, 0, ["slo.name=mine"], figures(0.1))
    frame = collect(tmp_path)
    assert frame["slo.name"].to_list() == ["mine"]
    assert frame.columns.index("slo.name") < frame.columns.index("status")


def test_lists_become_text(tmp_path):
    job(tmp_path, 0, [], figures(0.1) | {"warnings": ["one", "two"]})
    assert collect(tmp_path)["warnings"].to_list() == ["one; two"]


@pytest.mark.parametrize("name", ["", "missing"])
def test_a_folder_without_jobs_is_an_error_that_says_what_was_expected(tmp_path, name):
    with pytest.raises(HermesFlowError, match=r"holds no jobs of a multirun; expected folders 0, 1, …"):
        collect(tmp_path / name)


def test_the_table_is_written_beside_the_jobs(tmp_path):
    job(tmp_path, 0, ["rate=4"], figures(0.1))
    job(tmp_path, 1, ["rate=8"], error="no")
    frame = write_sweep(tmp_path)
    assert pl.read_parquet(tmp_path / "sweep.parquet").equals(frame)
    assert collect(tmp_path).equals(frame)
