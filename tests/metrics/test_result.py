"""A Result builds tables when asked and writes the files of a run, whole or not at all."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from metrics.handmade import four_requests, with_program

from hermes_flow.errors import HermesFlowError
from hermes_flow.metrics.files import replace_file
from hermes_flow.metrics.result import Result
from hermes_flow.program.program import Program

ALWAYS = ["requests.parquet", "stages.parquet", "clients.parquet", "summary.json", "program.txt"]


@pytest.fixture(autouse=True)
def program_text(monkeypatch):
    monkeypatch.setattr(Program, "__str__", lambda program: f"program {program.name}\n")


def test_tables_are_built_once():
    result = Result(four_requests())
    assert result.requests is result.requests
    assert result.summary is result.summary
    assert result.program is result.recording.program


def test_a_run_writes_its_tables_summary_and_program(tmp_path):
    result = Result(four_requests())
    written = result.write(tmp_path / "new" / "run")
    assert [path.name for path in written] == ALWAYS
    assert sorted(path.name for path in (tmp_path / "new" / "run").iterdir()) == sorted(ALWAYS)
    for name in ("requests", "stages", "clients"):
        frame = pl.read_parquet(tmp_path / "new" / "run" / f"{name}.parquet")
        assert frame.equals(getattr(result, name))
        assert frame.schema == getattr(result, name).schema
    assert json.loads(written[3].read_text()) == result.summary
    assert written[4].read_text() == "program four\n"


def test_steps_and_trace_are_written_on_request(tmp_path):
    result = Result(with_program(four_requests(), record_steps=True))
    names = [path.name for path in result.write(tmp_path, trace=True)]
    assert set(names) == {*ALWAYS, "steps.parquet", "trace.json.gz"}
    assert pl.read_parquet(tmp_path / "steps.parquet").equals(result.steps)


def test_equal_runs_give_equal_bytes(tmp_path):
    first = Result(with_program(four_requests(), record_steps=True)).write(tmp_path / "a", trace=True)
    second = Result(with_program(four_requests(), record_steps=True)).write(str(tmp_path / "b"), trace=True)
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_writing_again_replaces_what_was_there(tmp_path):
    (tmp_path / "summary.json").write_text("old")
    Result(four_requests()).write(tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text())["requests"]["completed"] == 3


def test_a_file_in_place_of_the_folder_is_named(tmp_path):
    blocked = tmp_path / "run"
    blocked.write_text("")
    with pytest.raises(HermesFlowError, match=r"run/requests\.parquet: cannot be written: File exists"):
        Result(four_requests()).write(blocked)


def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path):
    kept = tmp_path / "summary.json"
    kept.write_text("old")

    def full(file):
        file.write(b"half of the ")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(HermesFlowError, match=r"summary\.json: cannot be written: No space left on device"):
        replace_file(kept, full)
    assert kept.read_text() == "old"
    assert list(tmp_path.iterdir()) == [kept]


LIMITED = """
import resource, sys
from pathlib import Path
import polars as pl
from hermes_flow.errors import HermesFlowError
from hermes_flow.metrics.files import write_parquet
frame = pl.DataFrame({"value": pl.arange(0, 200_000, eager=True).shuffle(seed=1)})
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    write_parquet(frame, Path(sys.argv[1]))
except HermesFlowError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on file sizes")
def test_a_table_larger_than_its_room_is_an_error_that_names_the_file(tmp_path):
    path = tmp_path / "requests.parquet"
    root = str(Path(__file__).resolve().parents[2])
    code = f"import sys; sys.path.insert(0, {root!r})\n{LIMITED}"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{path}: cannot be written: ")
    assert list(tmp_path.iterdir()) == []


def test_the_result_module_does_not_load_polars():
    root = str(Path(__file__).resolve().parents[2])
    modules = "hermes_flow.metrics.result, hermes_flow.report.console, hermes_flow.metrics.trace_events"
    code = f"import sys; sys.path.insert(0, {root!r}); import {modules}; print('polars' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
