"""``hermes-flow plan`` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
from cli.command import hermes_flow, in_this_process

FEW = ("pipeline=llm", "workload.requests=150", "workload.rate_per_s=20", "task.tensor_parallel=[1]")


def test_plan_says_what_to_buy_and_keeps_every_design(tmp_path: Path) -> None:
    done = hermes_flow(tmp_path, "plan", *FEW, "task.hardware=[h100_sxm,l40s]", "task.headrooms=1")
    assert done.status == 0, done.err
    assert done.out.startswith("Buy ")
    assert "per hour" in done.out
    assert all(len(line) <= 80 for line in done.out.splitlines())
    folder = tmp_path / done.folder
    designs = pl.read_parquet(folder / "plan.parquet")
    assert designs["hardware"].unique().sort().to_list() == ["h100_sxm", "l40s"]
    best = json.loads((folder / "summary.json").read_text())["plan"]["best"]
    assert best["usd_per_hour"] == designs["usd_per_hour"].min()


def test_an_unknown_gpu_is_one_clear_line(tmp_path: Path) -> None:
    done = in_this_process(tmp_path, "plan", *FEW, "task.hardware=[h100]")
    assert done.status == 1
    assert "h100" in done.err
    assert "Traceback" not in done.err


def test_a_number_that_leaves_no_design_is_one_clear_line(tmp_path: Path) -> None:
    done = in_this_process(tmp_path, "plan", *FEW, "task.most_clients=0")
    assert done.status == 1
    assert done.err.strip() == (
        "hermes-flow: task.most_clients: 0 is out of range; expected an integer from 1 to\n  100,000"
    )


def test_an_unknown_layout_is_one_clear_line(tmp_path: Path) -> None:
    done = in_this_process(tmp_path, "plan", *FEW, "task.layouts=[colocated]")
    assert done.status == 1
    assert done.err.strip().startswith("hermes-flow: task.layouts: 'colocated' is unknown")
