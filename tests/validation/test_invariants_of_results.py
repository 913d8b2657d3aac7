"""The invariant checker passes what runs write, and finds what was planted in their files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from validation.result_folders import command, simulated, with_figure, with_table

import hermes_flow as hf
from hermes_flow.report.invariants_text import invariants_table
from hermes_flow.validation.invariants.check import INVARIANTS, check_run

GOOD = [
    *("pipeline=rag", "cluster=disaggregated", "workload=synthetic", "workload.requests=60"),
    *("workload.rate_per_s=20", "cluster.pools.host.cores=1"),
]
Change = Callable[[pl.DataFrame], pl.DataFrame]


def in_row(row: int, **values: pl.Expr | Any) -> Change:
    """Replace values in one row of a table."""

    def change(frame: pl.DataFrame) -> pl.DataFrame:
        here = pl.int_range(pl.len()) == row
        return frame.with_columns(
            pl.when(here)
            .then(value if isinstance(value, pl.Expr) else pl.lit(value))
            .otherwise(name)
            .cast(frame.schema[name])
            .alias(name)
            for name, value in values.items()
        )

    return change


def moved(row: int, seconds: float, *columns: str) -> Change:
    return in_row(row, **{name: pl.col(name) + seconds for name in columns})


def at(stage: str, seconds: float, *columns: str) -> Change:
    """Move the times of the first task of a stage."""

    def change(frame: pl.DataFrame) -> pl.DataFrame:
        return moved(frame["stage"].to_list().index(stage), seconds, *columns)(frame)

    return change


def in_pool(pool: str, **values: pl.Expr | Any) -> Change:
    """Replace values of the first client of a pool."""

    def change(frame: pl.DataFrame) -> pl.DataFrame:
        return in_row(frame["pool"].to_list().index(pool), **values)(frame)

    return change


def at_one_time(frame: pl.DataFrame) -> pl.DataFrame:
    """Let two tasks of the host, which has one core, be served at the same time."""
    host = [row for row, pool in enumerate(frame["pool"]) if pool == "host"]
    longest = max(host, key=lambda row: frame["service_s"][row])
    other = next(row for row in host if row != longest and frame["service_s"][row] > 0)
    begin, end = frame["start_s"][longest], frame["finish_s"][longest]
    return in_row(other, start_s=begin, finish_s=end, service_s=end - begin)(frame)


TABLES: list[tuple[str, str, Change]] = [
    ("columns", "requests", lambda frame: frame.drop("tpot_s")),
    ("columns", "stages", lambda frame: frame.with_columns(pl.col("tokens").cast(pl.Float64))),
    ("columns", "clients", lambda frame: frame.rename({"busy_fraction": "busy"})),
    ("finite", "requests", in_row(4, energy_j=float("nan"))),
    ("finite", "stages", in_row(7, queue_s=float("inf"))),
    ("request numbers", "requests", in_row(5, request=4)),
    ("request numbers", "requests", lambda frame: frame.filter(pl.col("request") != 17)),
    ("references", "stages", in_row(9, client="llm/99")),
    ("references", "stages", in_row(9, request=1000)),
    ("references", "clients", lambda frame: pl.concat([frame, frame.head(1)])),
    ("ends", "requests", in_row(3, status="running")),
    ("ends", "requests", in_row(3, finish_s=None)),
    ("ends", "requests", in_row(3, status="failed")),
    ("reasons", "requests", in_row(3, status="failed", finish_s=None, e2e_s=None)),
    ("times of requests", "requests", moved(2, 100.0, "arrival_s")),
    ("times of requests", "requests", in_row(2, arrival_s=-1.0)),
    ("times of requests", "requests", moved(2, 1e4, "first_token_s", "ttft_s")),
    ("latencies", "requests", moved(8, 1e-6, "ttft_s")),
    ("latencies", "requests", moved(8, -1e-6, "e2e_s")),
    ("latencies", "requests", in_row(8, tpot_s=None)),
    ("last tokens", "requests", in_row(8, tpot_s=pl.col("tpot_s") * 1.001)),
    ("last tokens", "requests", in_row(8, output_tokens=pl.col("output_tokens") + 1)),
    ("times of stages", "stages", at("decode", -1e3, "finish_s", "service_s")),
    ("times of stages", "stages", at("search", 1e3, "ready_s")),
    ("parts of stages", "stages", at("search", 1e-6, "transfer_s")),
    ("parts of stages", "stages", at("search", -1e-6, "service_s")),
    ("stages in requests", "stages", at("tokenize", -1e-3, "ready_s")),
    ("stages in requests", "stages", at("detokenize", 1e-3, "finish_s", "service_s")),
    ("predecessors", "stages", at("rerank", -1e-3, "ready_s", "start_s", "finish_s")),
    ("tasks at once", "stages", at_one_time),
    ("shares of clients", "clients", in_row(0, busy_fraction=1.001)),
    ("shares of clients", "clients", in_row(1, kv_peak_fraction=1.25)),
    ("tokens of clients", "stages", lambda frame: frame.with_columns(pl.col("tokens") * 1000)),
    ("tokens of tasks", "clients", in_pool("host", tokens=pl.col("tokens") + 1)),
    ("shares of links", "links", in_row(0, utilization=1.5)),
    ("bytes sent", "links", in_row(0, bytes=pl.col("bytes") - 1)),
    ("bytes of stages", "links", lambda frame: frame.with_columns(pl.col("bytes") * 2)),
    ("steps in turn", "steps", moved(1, -1e-4, "start_s")),
    ("steps in turn", "steps", moved(1, -1e3, "end_s")),
    ("totals of steps", "steps", lambda frame: frame.head(len(frame) - 1)),
    ("totals of steps", "steps", in_row(0, prefill_tokens=pl.col("prefill_tokens") + 10**9)),
    ("counts", "requests", lambda frame: frame.head(len(frame) - 1)),
    ("latency figures", "requests", moved(0, 0.5, "finish_s", "e2e_s")),
    ("stage figures", "stages", lambda frame: frame.with_columns(pl.col("service_s") * 2)),
    ("SLO of requests", "requests", in_row(11, slo_met=~pl.col("slo_met"))),
    ("energy", "clients", in_row(0, energy_j=pl.col("energy_j") + 10)),
    ("energy of requests", "requests", in_row(0, energy_j=pl.col("energy_j") + 1)),
    ("cost of clients", "clients", lambda frame: frame.with_columns(pl.col("cost_usd") / 2)),
]

FIGURES: list[tuple[str, str, Any]] = [
    ("counts", "requests/completed", 59),
    ("counts", "engine/steps", 7),
    ("latency figures", "ttft_s/p99", lambda value: value * 1.0001),
    ("latency figures", "e2e_s/mean", None),
    ("order of figures", "itl_s/p50", lambda value: value * 1e6),
    ("order of figures", "slo/attainment", 1.5),
    ("throughput", "throughput/requests_per_s", lambda value: value * 1.01),
    ("throughput", "throughput/output_tokens_per_s", lambda value: value / 2),
    ("stage figures", "stages/search/p99_s", lambda value: value * 2),
    ("pool figures", "pools/host/busy_fraction", 0.5),
    ("critical path", "critical_path/mean/queue_share", 1.5),
    ("SLO as configured", "slo/bounds/ttft_p99_s/limit_s", 0.25),
    ("SLO bounds", "slo/bounds/tpot_p90_s/value_s", lambda value: value + 0.01),
    ("SLO bounds", "slo/bounds/ttft_p50_s/met", lambda value: not value),
    ("SLO of requests", "slo/goodput_requests_per_s", lambda value: value + 0.1),
    ("energy", "energy/total_j", lambda value: value * 1.01),
    ("energy", "energy/idle_j", lambda value: value + 1e9),
    ("cost of tokens", "cost/output_tokens_per_usd", lambda value: value * 2),
    ("finite", "energy/total_j", float("nan")),
]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulated(tmp_path_factory.mktemp("good") / "run", *GOOD)


def violated(folder: Path) -> set[str]:
    (run,) = hf.check_invariants(folder)
    return {violation.invariant.name for violation in run.violations}


def test_a_good_run_violates_nothing_and_everything_is_checked(good: Path) -> None:
    run = check_run(good)
    assert run.violations == ()
    assert run.checked == tuple(range(1, len(INVARIANTS) + 1))
    assert run.skipped == {}


@pytest.mark.parametrize(("name", "table", "change"), TABLES, ids=[f"{n}-{t}" for n, t, _ in TABLES])
def test_a_violation_planted_in_a_table_is_found(
    good: Path, tmp_path: Path, name: str, table: str, change: Change
) -> None:
    assert name in violated(with_table(good, tmp_path / "copy", table, change))


@pytest.mark.parametrize(("name", "key", "value"), FIGURES, ids=[f"{n}-{k}" for n, k, _ in FIGURES])
def test_a_violation_planted_in_the_summary_is_found(
    good: Path, tmp_path: Path, name: str, key: str, value: Any
) -> None:
    assert name in violated(with_figure(good, tmp_path / "copy", key, value))


def test_a_figure_that_is_missing_is_found(good: Path, tmp_path: Path) -> None:
    copy = with_figure(good, tmp_path / "copy", "energy", {"total_j": None})
    assert "figures" in violated(copy)


@pytest.mark.parametrize("file", ["requests.parquet", "summary.json", ".hydra/config.yaml"])
def test_a_file_that_is_cut_off_is_found(good: Path, tmp_path: Path, file: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(good, copy)
    text = (copy / file).read_bytes()
    (copy / file).write_bytes(text[: len(text) // 2] + (b"\n{: [" if file.endswith("yaml") else b""))
    assert violated(copy) == {"files"}


def test_a_table_that_is_missing_beside_others_is_found(good: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(good, copy)
    (copy / "stages.parquet").unlink()
    assert violated(copy) == {"files"}


def test_every_invariant_is_found_to_be_violated_by_something_planted() -> None:
    planted = {name for name, _, _ in [*TABLES, *FIGURES]} | {
        "files",
        "figures",
        "phases",
        "fleets",
    }  # phases: tests/metrics/test_phases.py; fleets: tests/scaling/test_autoscaled_pools.py
    assert planted == {own.name for own in INVARIANTS}


def test_more_sequences_than_max_num_seqs_are_found(tmp_path: Path) -> None:
    run = simulated(
        tmp_path / "run",
        "pipeline=llm",
        "workload=synthetic",
        "workload.requests=40",
        "workload.rate_per_s=50",
    )
    assert violated(run) == set()
    path = run / ".hydra" / "config.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("max_num_seqs: 256", "max_num_seqs: 2"), encoding="utf-8")
    assert violated(run) == {"tasks at once"}


def test_the_page_lists_every_invariant() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "invariants.md"
    assert invariants_table() in page.read_text(encoding="utf-8")


def test_numbers_count_from_one_and_names_are_not_used_twice() -> None:
    assert [own.number for own in INVARIANTS] == list(range(1, len(INVARIANTS) + 1))
    assert len({own.name for own in INVARIANTS}) == len(INVARIANTS)


def test_the_command_says_which_invariant_fails_where_and_leaves_with_1(good: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with_table(good, tmp_path / "copy", "requests", moved(8, 0.25, "ttft_s"))
    done = command(tmp_path, "validate", "task.invariants=copy", "hydra.run.dir=out")
    frame = pl.read_parquet(good / "requests.parquet")
    number = next(own.number for own in INVARIANTS if own.name == "latencies")
    lines = [line for line in done.out.splitlines() if line.startswith(f"INV{number} ")]
    assert done.status == 1
    assert len(lines) == 1
    assert lines[0].startswith(f"INV{number} latencies: copy/requests.parquet row 8: ttft_s is ")
    assert f"{frame['ttft_s'][8] + 0.25:.12g}" in lines[0]
    assert f"{frame['arrival_s'][8]:.12g}" in lines[0]
    assert f"INV{number}" in done.err
    assert "1 of 1 run violates invariants" in " ".join(done.err.split())
    table = pl.read_parquet(tmp_path / "out" / "invariants.parquet")
    assert table.filter(name="latencies").select("invariant", "file", "rows").row(0) == (
        number,
        "requests.parquet",
        [8],
    )


def test_the_command_checks_several_folders_and_the_jobs_of_a_sweep(good: Path, tmp_path: Path) -> None:
    few = ["workload=synthetic", "workload.requests=10"]
    swept = command(tmp_path, "-m", "hydra.sweep.dir=swept", "pipeline=llm,chat", *few)
    assert swept.status == 0
    shutil.copytree(good, tmp_path / "copy")
    done = command(tmp_path, "validate", "task.invariants=[swept,copy]", "hydra.run.dir=out")
    assert done.status == 0
    assert f"3 runs, {len(INVARIANTS)} invariants: no violation" in done.out
    assert "1 of 3 runs have the files for all invariants" in done.out
    assert "in 2 runs without steps" in done.out
    with_table(tmp_path / "swept/1", tmp_path / "swept/2", "clients", in_row(0, busy_fraction=2.0))
    done = command(tmp_path, "validate", "task.invariants=swept", "hydra.run.dir=out2")
    assert done.status == 1
    assert "swept/2/clients.parquet row 0: busy_fraction of" in done.out


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["task.invariants=copy", "task.runs=copy"], "task.invariants: it does not go with task.runs"),
        ([], "task.invariants=DIR"),
        (["task.invariants=[]"], "task.invariants: no folders"),
        (["task.invariants=nowhere"], "nowhere: there is no such folder"),
        (["task.invariants=file.txt"], "file.txt: this is a file"),
        (["task.invariants=empty"], "empty: holds no result of a run"),
    ],
)
def test_what_cannot_be_checked_is_a_clear_error(tmp_path: Path, given: list[str], says: str) -> None:
    (tmp_path / "file.txt").write_text("")
    (tmp_path / "empty").mkdir()
    done = command(tmp_path, "validate", "hydra.run.dir=out", *given)
    assert done.status == 1
    assert says in " ".join(done.err.split())


def test_folders_of_capacity_and_plan_hold(tmp_path: Path) -> None:
    small = ["pipeline=llm", "workload=synthetic", "workload.requests=40"]
    assert command(tmp_path, "capacity", "hydra.run.dir=capacity", "task.seeds=1", *small).status == 0
    plan = ["task.hardware=[h100_sxm]", "task.layouts=[replicas]", "task.tensor_parallel=[1]"]
    done = command(tmp_path, "plan", "hydra.run.dir=plan", "task.headrooms=0", *plan, *small)
    assert done.status == 0, done.err
    for name in ("capacity", "plan"):
        run = check_run(tmp_path / name)
        assert run.violations == ()
        assert {own.number for own in INVARIANTS if set(own.needs) <= {"summary", "config"}} == set(
            run.checked
        )
