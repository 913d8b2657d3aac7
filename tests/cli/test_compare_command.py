"""``hermes-flow compare A B`` prints what differs, and writes the table and the page."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from cli.command import in_this_process
from report.page_reading import read_page


def test_two_runs_are_compared_from_the_command_line(tmp_path: Path) -> None:
    for name, count in (("one", 1), ("two", 2)):
        done = in_this_process(
            tmp_path,
            "pipeline=llm", "workload.requests=60", f"cluster.pools.llm.count={count}", f"hydra.run.dir={name}",
        )  # fmt: skip
        assert done.status == 0, done.err
    figures = ("task.rank=e2e_s.p50", "task.pareto=[cost.usd_per_hour,e2e_s.p50]")
    done = in_this_process(tmp_path, "compare", "one", "two", *figures, "hydra.run.dir=both")
    assert done.status == 0, done.err
    assert "cluster.pools.llm.count  1    2" in done.out
    assert "$ per hour" in done.out
    assert "Pareto front" in done.out
    table = pl.read_parquet(tmp_path / "both" / "compare.parquet")
    row = table.row(by_predicate=pl.col("figure") == "cost.usd_per_hour", named=True)
    assert row["two"] == 2 * row["one"]
    page = read_page((tmp_path / "both" / "compare.html").read_text(encoding="utf-8"))
    assert page.row("cluster.pools.llm.count") == ["cluster.pools.llm.count", "1", "2"]
    lonely = in_this_process(tmp_path, "compare", "one")
    assert lonely.status == 1
    assert "1 run to compare; expected the folders of at least two" in lonely.err
    for asked, said in {
        "task.rank=nope": "task.rank: nope is no figure of these runs; ",
        "task.pareto=[ttft_s.p99]": "task.pareto: ['ttft_s.p99'] are not two or three different figures",
    }.items():
        wrong = in_this_process(tmp_path, "compare", "one", "two", asked)
        assert " ".join(wrong.err.split()).startswith(f"hermes-flow: {said}")
    assert "task.runs: no folders" in in_this_process(tmp_path, "compare").err
