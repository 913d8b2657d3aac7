"""A run in windows of requests gives the tables of a run that is held in memory as a whole."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import hermes_flow as hf
from hermes_flow.compiler.check_windows import in_windows
from hermes_flow.machine import windowed
from hermes_flow.metrics.result import Result
from hermes_flow.program import disk_columns
from hermes_flow.program.disk_columns import DiskColumn, forget_pages, on_disk
from hermes_flow.program.program import Program

SMALL = ["workload=synthetic", "workload.requests=400", "workload.rate_per_s=8", "cluster.pools.llm.count=2"]


def run(*overrides: str) -> Result:
    return hf.simulate(hf.compile(hf.compose([*SMALL, *overrides])))


def without_work(summary: dict[str, Any]) -> dict[str, Any]:
    """The summary without what it says of the simulator itself."""
    return {name: figures for name, figures in summary.items() if name != "engine"}


def assert_same(windows: Result, whole: Result) -> None:
    assert windows.program.stream_requests is not None
    assert whole.program.stream_requests is None
    for name in ("requests", "stages", "clients"):
        expected = getattr(whole, name)
        assert getattr(windows, name).equals(expected)
        assert getattr(windows, name).schema == expected.schema
    assert without_work(windows.summary) == without_work(whole.summary)
    assert windows.summary["engine"]["steps"] == whole.summary["engine"]["steps"]


@pytest.mark.parametrize(
    "overrides",
    [
        ["pipeline=llm"],
        ["pipeline=chat"],
        # The clients are idle most of the time, and keep what ended last until another task comes.
        ["pipeline=llm", "workload.rate_per_s=0.5", "cluster.pools.llm.count=3"],
        ["pipeline=chat", "cluster.pools.llm.routing=least_requests"],
        ["pipeline=llm", "cluster.pools.llm.routing=least_work_left", "workload.seed=3"],
        ["pipeline=llm", "cluster.pools.llm.batching=continuous", "workload.arrivals=uniform"],
        # Requests that no client can serve have no tasks.
        ["pipeline=chat", "cluster.pools.llm.kv_blocks=60", "workload.rate_per_s=2"],
    ],
    ids=lambda overrides: " ".join(overrides),
)
def test_windows_give_the_tables_and_figures_of_the_whole_run(overrides: list[str]) -> None:
    assert_same(run(*overrides, "output.stream_requests=80"), run(*overrides))


@pytest.mark.parametrize("preemption", ["recompute", "swap"])
def test_preempted_requests_come_back_in_their_window_or_a_later_one(preemption: str) -> None:
    scarce = [
        "pipeline=llm",
        f"cluster.pools.llm.preemption={preemption}",
        "cluster.pools.llm.kv_blocks=450",
        "workload.rate_per_s=8",
    ]
    whole = run(*scarce)
    assert whole.requests["preemptions"].sum() > 0
    assert_same(run(*scarce, "output.stream_requests=90"), whole)


def test_a_trace_is_streamed_as_it_is_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    path = tmp_path / "trace.csv"
    pl.DataFrame(
        {
            "arrival_s": np.cumsum(rng.exponential(0.05, 400)),
            "input_tokens": rng.integers(1, 900, 400),
            "output_tokens": rng.integers(1, 90, 400),
        }
    ).write_csv(path)
    given = ["workload=trace", f"workload.path={path}", "pipeline=chat"]
    windows = hf.simulate(hf.compile(hf.compose([*given, "output.stream_requests=50"])))
    assert_same(windows, hf.simulate(hf.compile(hf.compose(given))))


def test_the_files_of_a_run_in_windows_are_those_of_the_whole_run(tmp_path: Path) -> None:
    for name, key in (("whole", "null"), ("windows", "80")):
        run("pipeline=chat", f"output.stream_requests={key}").write(tmp_path / name)
    for table in ("requests", "stages", "clients"):
        file = f"{table}.parquet"
        assert (tmp_path / "windows" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_the_machine_has_room_for_four_windows_however_long_the_run_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rooms: list[int] = []

    class Spied(windowed._WindowedMachine):
        def __init__(self, program: Program) -> None:
            rooms.append(len(program.requests))
            super().__init__(program)

    monkeypatch.setattr(windowed, "_WindowedMachine", Spied)
    for requests in (330, 700):
        run("pipeline=llm", f"workload.requests={requests}", "output.stream_requests=80")
    assert rooms == [320, 320]


def test_a_run_of_at_most_four_windows_is_held_as_a_whole() -> None:
    program = hf.compile(hf.compose([*SMALL, "pipeline=llm", "output.stream_requests=100"]))
    assert program.stream_requests is None


def test_requests_that_stay_too_long_for_the_window_are_an_error_that_says_so() -> None:
    with pytest.raises(
        hf.HermesFlowError, match=r"^output\.stream_requests: 10, but a request is still in the"
    ):
        run("pipeline=llm", "workload.rate_per_s=1000", "output.stream_requests=10")


@pytest.mark.parametrize(
    ("overrides", "reasons"),
    [
        (
            ["output.trace=true", "output.steps=true", "output.report=true", "workload.timeout_s=60"],
            [
                *(f"output.{name} is true" for name in ("trace", "steps", "report")),
                "the workload has timeouts",
            ],
        ),
        (
            ["workload.arrivals={process: closed_loop, concurrency: 4}", "engine=sglang"],
            ["arrivals depend on answers", "cluster.pools.llm has another scheduler than that of vLLM"],
        ),
        (
            [
                "cluster.pools.llm.packing=shortest_prompt",
                "cluster.pools.llm.prefix_cache=true",
                "cluster.pools.llm.routing=session_affinity",
            ],
            [
                "cluster.pools.llm has another packing than fcfs",
                "cluster.pools.llm has a prefix cache",
                "cluster.pools.llm has the routing session_affinity",
            ],
        ),
        (["pipeline=rag"], ["cluster.pools.embed has the kind batched"]),
        (["cluster=disaggregated"], ["data of an earlier stage move to stage decode"]),
    ],
)
def test_what_needs_all_requests_at_once_is_refused_by_name(overrides: list[str], reasons: list[str]) -> None:
    small = SMALL[:-1] if "cluster=disaggregated" in overrides else SMALL
    config = hf.compose([*small, "pipeline=llm", *overrides, "output.stream_requests=100"])
    with pytest.raises(hf.CompileError) as error:
        hf.compile(config)
    for reason in reasons:
        why = "which takes the whole list of requests in memory; expected null"
        assert f"output.stream_requests: {reason}, {why}" in error.value.problems


def test_every_further_column_of_the_requests_or_of_their_work_is_refused() -> None:
    """A column that the slots do not know would keep the values of the first requests."""
    config = hf.compose([*SMALL, "pipeline=llm", "output.stream_requests=50"])
    program = hf.compile(config)
    column = np.zeros(len(program.requests), np.int64)
    work = program.ops[0].work
    changed = [
        replace(program, requests=replace(program.requests, **{name: column}))
        for name in optional_columns(program.requests)
    ] + [
        replace(program, ops=(replace(program.ops[0], work=replace(work, **{name: column})),))
        for name in optional_columns(work)
    ]
    assert len(changed) > 8
    for one in changed:
        with pytest.raises(hf.CompileError, match=r"output\.stream_requests: "):
            in_windows(one, config.output)


def optional_columns(whole: Any) -> list[str]:
    return [field.name for field in fields(whole) if field.type == "Ints | None"]


def test_a_folder_for_temporary_files_without_room_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    program = hf.compile(hf.compose([*SMALL, "pipeline=llm", "output.stream_requests=40"]))

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk_columns.tempfile, "TemporaryFile", full)
    with pytest.raises(hf.HermesFlowError, match=r"temporary files, .*: No space left on device; .* TMPDIR"):
        hf.simulate(program)


def test_a_column_on_the_disk_has_what_was_appended() -> None:
    column = DiskColumn()
    parts = [
        np.zeros(5, np.int64),
        np.zeros(0, np.int64),
        np.zeros(3, np.int64),
        np.arange(4),
        np.full(2, -1),
    ]
    for part in parts:
        column.append(part)
    array = column.array()
    assert array.tolist() == np.concatenate(parts).tolist()
    forget_pages((array,))
    assert array.tolist() == np.concatenate(parts).tolist()
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1


def test_a_column_of_equal_values_takes_no_room() -> None:
    column = DiskColumn(np.int32)
    column.append(np.full(1000, 7))
    column.append(np.full(1000, 7))
    array = column.array()
    assert (array == 7).all()
    assert (len(array), array.dtype, array.strides) == (2000, np.int32, (0,))


def test_columns_that_are_one_stay_one_on_the_disk() -> None:
    program = hf.compile(hf.compose([*SMALL, "pipeline=llm"]))
    requests, ops = on_disk((program.requests, program.ops))
    assert requests.output_tokens is ops[0].work.output
    assert requests.input_tokens.tolist() == program.requests.input_tokens.tolist()
