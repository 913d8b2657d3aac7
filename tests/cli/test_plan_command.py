"""``hermes-flow plan`` as a user runs it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from cli.command import hermes_flow, in_this_process

import hermes_flow as hf
from hermes_flow.planning.plan_table import command_of
from hermes_flow.planning.verdict import Verdict, judge

FEW = ("pipeline=llm", "workload.requests=150", "workload.rate_per_s=20", "task.tensor_parallel=[1]")


def test_plan_says_what_to_buy_and_keeps_every_design(tmp_path: Path) -> None:
    asked = "slo={name: ours, ttft_ms: {p90: 900}}"
    done = hermes_flow(tmp_path, "plan", *FEW, asked, "task.hardware=[h100_sxm,l40s]", "task.headrooms=1")
    assert done.status == 0, done.err
    assert done.out.startswith("Buy ")
    assert "per hour" in done.out
    assert all(len(line) <= 80 for line in done.out.splitlines())
    folder = tmp_path / done.folder
    designs = pl.read_parquet(folder / "plan.parquet")
    assert designs["hardware"].unique().sort().to_list() == ["h100_sxm", "l40s"]
    best = json.loads((folder / "summary.json").read_text())["plan"]["best"]
    assert best["usd_per_hour"] == designs["usd_per_hour"].min()
    command = " ".join(done.out.partition("Run it: ")[2].partition("\n\n")[0].split())
    words = shlex.split(command)
    assert words[:5] == ["hermes-flow", *FEW[:3], asked]  # all that was asked, without what concerns the plan
    config = hf.compose(words[1:])
    assert (config.slo.name, config.workload.requests) == ("ours", 150)
    run = hf.simulate(hf.compile(config)).summary
    assert run["ttft_s"]["p99"] == pytest.approx(designs["ttft_p99_s"][0])


def test_the_command_of_a_disaggregated_design_gives_both_pools_what_the_plan_was_given() -> None:
    design = (
        "cluster=disaggregated hardware=h100_sxm cluster.pools.prefill.count=1 cluster.pools.decode.count=2"
    )
    given = ["task=plan", "cluster=replicas", "cluster.pools.llm.block_size=32", "cluster.pools.llm.count=9"]
    pools = [f"cluster.pools.{pool}.block_size=32" for pool in ("prefill", "decode")]
    assert command_of(design, given) == " ".join(["hermes-flow", *pools, design])


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


ALONE = ("pipeline=llm", "workload.requests=60", "workload.rate_per_s=20", "task.processes=1")
SMALL = (
    *ALONE,
    "task.tensor_parallel=[1]",
    "task.hardware=[h100_sxm,l40s]",
    "task.error_bars=1",
    "task.headrooms=1",
)


def test_a_plan_that_is_interrupted_says_its_best_answer_and_others_go_on_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulated: list[hf.Program] = []
    stops: set[int] = set()

    def judged(program: hf.Program) -> Verdict:
        simulated.append(program)
        if len(simulated) in stops:
            raise KeyboardInterrupt
        return judge(program)

    for place in ("sizing", "search"):
        monkeypatch.setattr(f"hermes_flow.planning.{place}.judge", judged)
    whole = in_this_process(tmp_path, "plan", *SMALL, "hydra.run.dir=whole")
    assert whole.status == 0, whole.err
    total = len(simulated)
    simulated.clear()
    stops |= {25, total - 5}  # among the sizes of the designs, and in a search for the spare load
    resumed = ""
    for name in ("first", "second"):
        stopped = in_this_process(tmp_path, "plan", *SMALL, f"hydra.run.dir={name}", *resumed.split())
        assert stopped.status == 130
        assert stopped.out.startswith("Buy ")
        assert "note: stopped after " in stopped.out
        resumed = f"task.resume={name}"
        assert f"{resumed} goes on from the simulations that are done" in " ".join(stopped.err.split())
        kept = tmp_path / name / "plan.jsonl"
        kept.write_text(kept.read_text() + '["half a line')  # as a killed process leaves it
    last = in_this_process(tmp_path, "plan", *SMALL, resumed, "hydra.run.dir=last")
    assert last.status == 0, last.err
    assert len(simulated) == total + 2  # each was made once, but for those that were interrupted
    found = [pl.read_parquet(tmp_path / name / "plan.parquet") for name in ("whole", "last")]
    assert found[0].equals(found[1])


def test_a_plan_goes_on_only_from_one_of_the_same_configuration(tmp_path: Path) -> None:
    settings = (
        "task.hardware=[h100_sxm]",
        "task.layouts=[replicas]",
        "task.error_bars=0",
        "task.headrooms=0",
    )
    first = in_this_process(tmp_path, "plan", *SMALL, *settings, "hydra.run.dir=first")
    assert first.status == 0, first.err
    other = in_this_process(tmp_path, "plan", *SMALL, "slo=rag", "task.resume=first", "hydra.run.dir=other")
    assert (
        "task.resume: first has a search of another configuration, which differs in slo; expected"
        in " ".join(other.err.split())
    )
    search = in_this_process(tmp_path, "capacity", "pipeline=llm", "task.resume=first", "hydra.run.dir=other")
    assert "task.resume: first has the result of plan; expected that of capacity" in " ".join(
        search.err.split()
    )
    gone = in_this_process(tmp_path, "plan", *SMALL, "task.resume=nowhere", "hydra.run.dir=other")
    assert "nowhere is no folder of a search" in " ".join(gone.err.split())
    assert not (tmp_path / "other").exists()


def test_the_rates_of_a_day_share_the_time_that_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, takes = [100.0], iter([30.0, 10.0, 1.0])
    asked: list[tuple[float, float]] = []

    def planned(config: hf.Config, *given: Any, seconds: float, **settings: Any) -> hf.Plan:
        asked.append((getattr(config.workload, "rate_per_s"), seconds))  # noqa: B009
        now[0] += next(takes)
        return hf.Plan((), (), complete=False)

    monkeypatch.setattr("hermes_flow.planning.plan.plan", planned)
    monkeypatch.setattr("hermes_flow.tasks.plan.time", SimpleNamespace(monotonic=lambda: now[0]))
    day = ("task.hours=[4,10,30,10,4]", "task.seconds=60", "task.hardware=[h100_sxm]")
    done = in_this_process(tmp_path, "plan", "pipeline=llm", *day)
    assert done.status == 0, done.err
    # A third of the minute for the busiest hour, half of the 30 s that are left, and the 20 s that are left then.
    assert asked == [(30, 20), (10, 15), (4, 20)]
    assert " goes on from here" in " ".join(done.out.split())


def test_a_workload_too_short_for_its_rate_is_the_reason_and_not_the_number_of_clients(
    tmp_path: Path,
) -> None:
    few = ("task.most_clients=8", "task.layouts=[replicas]", "task.hardware=[h100_sxm]")
    short = ("workload.requests=40", "workload.rate_per_s=100")
    done = in_this_process(tmp_path, "plan", *FEW, *short, *few, "task.processes=1")
    assert done.status == 0, done.err
    assert (
        "h100_sxm TP1 replicas: 8 clients meet every bound, but requests in flight still grow at the last arrival"
        in " ".join(done.out.split())
    )


def test_a_design_without_a_price_has_accelerators_in_place_of_dollars(tmp_path: Path) -> None:
    done = in_this_process(
        *(tmp_path, "plan", *ALONE, "workload.rate_per_s=4", "task.tensor_parallel=[1]", "task.error_bars=2"),
        *("task.hardware=[h100_sxm,mi300x]", "task.layouts=[replicas]", "task.headrooms=0"),
    )
    assert done.status == 0, done.err
    (row,) = (line for line in done.out.splitlines() if " × mi300x" in line)
    best = pl.read_parquet(tmp_path / done.folder / "plan.parquet").filter(pl.col("hardware") == "mi300x")
    few, many = best.select("accelerators_low", "accelerators_high").row(0)
    assert row.split()[:6] == ["2", "–", "×", f"{few}", "–", f"{many}"]
    wrong = in_this_process(tmp_path, "plan", *FEW, "task.hardware=[h100_sxm,h20]")
    assert " ".join(wrong.err.split()).startswith("hermes-flow: task.hardware: there is no 'h20'; ")
