"""Rows of a trace that are not in order of arrival are sorted, and a warning says which they are."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from trace_files import write_trace

import hermes_flow as hf
from hermes_flow.config.schema import TraceWorkload
from hermes_flow.workload.build import build_requests

DAY_S = 86_400


def rows(*arrivals_s: object) -> list[tuple[object, ...]]:
    return [(at, 100, 10) for at in arrivals_s]


def test_a_row_dated_a_day_earlier_is_named_in_a_warning_of_the_run(tmp_path: Path) -> None:
    path = tmp_path / "day.csv"
    words = write_trace(path, rows(DAY_S, DAY_S + 1, 2, DAY_S + 3, 1))
    result = hf.simulate(hf.compile(hf.compose(["pipeline=llm", "slo=none", *words])))
    assert result.summary["warnings"] == [
        f"{path}: 2 of 5 rows arrive before a row above them, the first of them in line 4, and by up to 86,402 s; "
        "all rows are sorted by arrival"
    ]
    arrivals = result.requests["arrival_s"].to_list()
    assert arrivals == sorted(arrivals)


def test_the_lines_are_those_of_the_file_where_a_window_takes_a_part(tmp_path: Path) -> None:
    path = tmp_path / "part.csv"
    write_trace(path, rows(0, 1, 10, 12, 11.5, 30))
    requests = build_requests(TraceWorkload("trace", "native", str(path), start=5.0, duration=20.0), 0)
    (note,) = requests.notes
    assert (
        "1 of 3 rows arrive before a row above them, the first of them in line 6, and by up to 0.5 s" in note
    )


def test_a_row_of_a_table_without_lines_is_named_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    table = {"arrival_s": [3.0, 1.0], "input_tokens": [5, 5], "output_tokens": [5, 5]}
    pl.DataFrame(table).write_parquet(path)
    (note,) = build_requests(TraceWorkload("trace", "native", str(path)), 0).notes
    assert (
        "1 of 2 rows arrive before a row above them, the first of them in row 2 (counted from 1), and by up to 2 s"
        in note
    )


@pytest.mark.parametrize("arrivals", [(0, 1, 1, 2), (5,), (0, 0, 0)])
def test_rows_in_order_and_at_once_have_no_warning(arrivals: tuple[int, ...], tmp_path: Path) -> None:
    path = tmp_path / "sorted.csv"
    write_trace(path, rows(*arrivals))
    assert build_requests(TraceWorkload("trace", "native", str(path)), 0).notes == ()


def test_turns_that_wait_for_an_answer_have_no_arrival_to_be_out_of_order(tmp_path: Path) -> None:
    path = tmp_path / "turns.csv"
    turns = [(0, 100, 10, 1, ""), ("", 50, 10, 1, 20), (1, 100, 10, 2, "")]
    write_trace(path, turns, "session", "delay_ms")
    assert build_requests(TraceWorkload("trace", "native", str(path)), 0).notes == ()
