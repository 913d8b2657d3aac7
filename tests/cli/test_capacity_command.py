"""``hermes-flow capacity`` as a user runs it."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from cli.command import hermes_flow, in_this_process

import hermes_flow as hf
from hermes_flow.planning.verdict import Verdict, judge
from hermes_flow.tasks.verb import verbs


def test_capacity_says_the_highest_rate_and_keeps_every_probe(tmp_path: Path) -> None:
    done = hermes_flow(tmp_path, "capacity", "pipeline=llm", "workload.requests=300", "task.seeds=2")
    assert done.status == 0, done.err
    assert done.out.startswith("Capacity: SLO chat is met up to ")
    assert all(len(line) <= 80 for line in done.out.splitlines())
    folder = tmp_path / done.folder
    summary = json.loads((folder / "summary.json").read_text())
    found = summary["capacity"]
    assert found["over"] == "workload.rate_per_s"
    assert found["low"] <= found["seeds_low"] <= found["value"] <= found["seeds_high"] <= found["high"]
    assert all(bound["met"] for bound in summary["slo"]["bounds"].values())
    probes = pl.read_parquet(folder / "capacity.parquet")
    assert len(probes) == found["probes"]
    own = (pl.col("seed") == 0) & (pl.col("step_times") == 1)
    assert probes.filter(pl.col("met") & own)["value"].max() == found["value"]


def test_a_sweep_has_the_capacity_of_every_design_as_a_column(tmp_path: Path) -> None:
    done = in_this_process(
        *(tmp_path, "capacity", "-m", "pipeline=llm", "workload.requests=200", "task.seeds=1"),
        *("cluster.pools.llm.count=1,2", "hydra.sweep.dir=sweep"),
    )
    assert done.status == 0, done.err
    table = pl.read_parquet(tmp_path / "sweep" / "sweep.parquet")
    one, two = table["capacity.value"].to_list()
    assert one < two


def test_a_wrong_setting_is_one_clear_line(tmp_path: Path) -> None:
    done = in_this_process(tmp_path, "capacity", "task.tolerance=2")
    assert done.status == 1
    text = " ".join(done.err.split())
    assert text.startswith(
        "hermes-flow: task.tolerance: 2 is out of range; expected a number from 0 to below 1"
    )


def test_a_search_goes_on_with_the_probes_of_an_earlier_one_of_the_same_configuration(tmp_path: Path) -> None:
    search = ["capacity", "pipeline=llm", "workload.requests=150", "task.seeds=1", "task.tolerance=0.1"]
    first = in_this_process(tmp_path, *search, "hydra.run.dir=first")
    assert first.status == 0, first.err
    probes = tmp_path / "first" / "capacity.parquet"
    kept = pl.read_parquet(probes)
    # A search that was killed leaves fewer probes. These are changed, to see that they are not simulated again.
    marked = kept.head(3).with_columns(rate_per_s=pl.lit(123.0))
    marked.write_parquet(probes)
    second = in_this_process(tmp_path, *search, "task.resume=first", "hydra.run.dir=second")
    assert second.status == 0, second.err
    again = pl.read_parquet(tmp_path / "second" / "capacity.parquet")
    assert again.head(3).equals(marked)
    assert again.tail(-3).equals(kept.tail(-3))
    other = in_this_process(tmp_path, *search, "hardware=l40s", "task.resume=first", "hydra.run.dir=third")
    assert other.status == 1
    said = "task.resume: first has a search of another configuration, which differs in cluster, hardware; expected"
    assert said in " ".join(other.err.split())
    key = ("task.over=cluster.pools.llm.max_num_seqs", "task.resume=first", "hydra.run.dir=third")
    other = in_this_process(tmp_path, *search, *key)
    said = "first has a search over workload.rate_per_s; expected one over cluster.pools.llm.max_num_seqs"
    assert said in " ".join(other.err.split())


def test_a_search_that_is_interrupted_keeps_its_simulations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = ["capacity", "pipeline=llm", "workload.requests=100", "task.seeds=1", "task.tolerance=0.2"]
    done: list[hf.Program] = []

    def judged(program: hf.Program) -> Verdict:
        done.append(program)
        if len(done) == 3:
            raise KeyboardInterrupt
        return judge(program)

    monkeypatch.setattr("hermes_flow.planning.search.judge", judged)
    stopped = in_this_process(tmp_path, *search, "hydra.run.dir=first")
    assert stopped.status == 130
    assert stopped.out.startswith("So far SLO chat is ")
    assert " ".join(stopped.err.split()) == (
        "hermes-flow: interrupted; the same command with hydra.run.dir=ANOTHER_FOLDER and task.resume=first goes on "
        "from the simulations that are done"
    )
    kept = pl.read_parquet(tmp_path / "first" / "capacity.parquet")
    assert len(kept) == 2
    second = in_this_process(tmp_path, *search, "task.resume=first", "hydra.run.dir=second")
    assert second.status == 0, second.err
    again = pl.read_parquet(tmp_path / "second" / "capacity.parquet")
    assert again.head(2).equals(kept)
    assert len(again) == len(done) - 1  # the two first ones were not simulated again


def test_every_key_of_a_verb_stands_in_its_file() -> None:
    for name in ("capacity", "plan", "calibrate", "compare", "export"):
        verb: Any = verbs.find(name, "task.kind")
        keys = {field.name for field in fields(verb) if field.init}
        given = hf.compose([f"task={name}"]).task
        assert keys <= set(given), f"conf/task/{name}.yaml lacks {keys - set(given)}"
