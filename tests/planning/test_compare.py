"""Comparisons find what differs, the parts of the mean request add up, and ranks and fronts follow the figures."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import pytest
import yaml
from report.page_reading import read_page

import hermes_flow as hf
from hermes_flow.errors import ConfigError, HermesFlowError
from hermes_flow.report.compare_text import compact_settings, compare_text

RATES = {"slow": 2.0, "fast": 12.0}


def simulated(*overrides: str) -> hf.Result:
    return hf.simulate(hf.compile(hf.compose(["workload.requests=150", *overrides])))


@pytest.fixture(scope="module")
def results() -> dict[str, hf.Result]:
    return {
        "slow": simulated("workload.rate_per_s=2"),
        "fast": simulated("workload.rate_per_s=12"),
        "apart": simulated("workload.rate_per_s=12", "cluster=disaggregated"),
    }


@pytest.fixture(scope="module")
def found(results: dict[str, hf.Result]) -> hf.Comparison:
    return hf.compare(results)  # type: ignore[arg-type]


def written(result: hf.Result, folder: Path, settings: dict[str, object], overrides: list[str]) -> Path:
    result.write(folder)
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(overrides), encoding="utf-8")
    return folder


def test_every_figure_stands_beside_the_others_with_its_change(
    found: hf.Comparison, results: dict[str, hf.Result]
) -> None:
    row = found.figures.row(by_predicate=pl.col("figure") == "ttft_s.p99", named=True)
    for label, result in results.items():
        assert row[label] == result.summary["ttft_s"]["p99"]
    assert row["better"] == "low"
    assert row["change fast"] == pytest.approx(row["fast"] / row["slow"] - 1)
    assert "engine.wall_s" not in found.figures["figure"].to_list()


def test_the_seconds_of_stages_and_causes_add_up_to_the_mean_end_to_end_time(
    found: hf.Comparison, results: dict[str, hf.Result]
) -> None:
    for label, result in results.items():
        assert found.why[label].sum() == pytest.approx(result.summary["e2e_s"]["mean"], rel=1e-9)
    more = found.why["more fast"].sum()
    assert more == pytest.approx(
        results["fast"].summary["e2e_s"]["mean"] - results["slow"].summary["e2e_s"]["mean"], rel=1e-6
    )


def test_the_causes_of_a_chain_are_those_of_the_table_of_stages(
    found: hf.Comparison, results: dict[str, hf.Result]
) -> None:
    decodes = results["apart"].stages.filter(pl.col("stage") == "decode")
    times = {(row["stage"], row["cause"]): row["apart"] for row in found.why.iter_rows(named=True)}
    for cause in ("queue", "transfer", "service"):
        assert times["decode", cause] == pytest.approx(decodes[f"{cause}_s"].mean(), rel=1e-6)


def test_ranks_follow_the_direction_that_is_better(found: hf.Comparison) -> None:
    assert found.ranked("ttft_s.p50")["run"].to_list()[-1] == "fast"
    assert found.ranked("throughput.requests_per_s")["run"].to_list()[-1] == "slow"


def test_a_front_over_three_figures_keeps_whom_nobody_beats(found: hf.Comparison) -> None:
    front = found.pareto(["cost.usd_per_hour", "tpot_s.p50", "throughput.requests_per_s"])
    assert front.filter(pl.col("on_front"))["run"].to_list() == ["slow", "fast", "apart"]
    assert found.pareto(["cost.usd_per_hour", "tpot_s.p50"])["on_front"].to_list() == [True, False, False]


@pytest.mark.parametrize(
    ("figures", "message"),
    [
        (["ttft_s.p98", "tpot_s.p50"], "ttft_s.p98: is no figure of these runs; "),
        (["ttft_s.p99"], "not two or three different figures"),
        (["ttft_s.p99", "ttft_s.p99"], "not two or three different figures"),
        (["ttft_s.p99", "pools.llm.clients"], "neither more nor less of it is better"),
    ],
)
def test_fronts_that_mean_nothing_are_refused(found: hf.Comparison, figures: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        found.pareto(figures)


def test_settings_that_differ_are_found_and_catalog_entries_stand_for_their_figures(
    results: dict[str, hf.Result], tmp_path: Path
) -> None:
    one = {"seed": 0, "model": {"name": "a", "layers": 32}, "cluster": {"pools": {"llm": {"count": 1}}}}
    other = {
        "seed": 0,
        "model": {"name": "b", "layers": 80},
        "cluster": {"pools": {"llm": {"count": 2}, "embed": {"count": 3, "hardware": {"name": "l40s"}}}},
        "output": {"steps": True},
    }
    first = written(results["slow"], tmp_path / "x" / "run", one, [])
    second = written(results["fast"], tmp_path / "y" / "run", other, [])
    found = hf.compare([first, second])
    assert found.labels == ["x/run", "y/run"]
    assert dict(found.settings.select("key", "y/run").rows())["model.layers"] == "80"
    kept, hidden = compact_settings(found)
    assert dict(kept) == {
        "model.name": ["a", "b"],
        "cluster.pools.llm.count": ["1", "2"],
        "cluster.pools.embed": ["–", "3 × l40s"],
    }
    assert hidden == 2
    text = compare_text(found, rank="ttft_s.p99")
    assert "cluster.pools.llm.count" in text
    assert "Mean E2E is" in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_run_without_a_price_is_named_where_costs_are_compared(results: dict[str, hf.Result]) -> None:
    found = hf.compare({"priced": results["fast"], "free": simulated("prices=none")})  # type: ignore[arg-type]
    named = "Not compared by cost, as something there has no price: free."
    assert named in compare_text(found, rank="cost.usd_per_hour")
    assert named in compare_text(found, pareto=["cost.usd_per_hour", "ttft_s.p99"])
    assert named not in compare_text(found, rank="ttft_s.p99")


def test_sweeps_are_compared_job_by_job(results: dict[str, hf.Result], tmp_path: Path) -> None:
    for sweep, offset in (("old", 0), ("new", 1)):
        for job, label in enumerate(("slow", "fast")):
            own = list(results)[job + offset]
            rate = ["workload.rate_per_s=" + str(RATES[label])]
            written(results[own], tmp_path / sweep / str(job), {"seed": offset}, rate)
        failed = tmp_path / sweep / "2"
        failed.mkdir()
        (failed / "error.txt").write_text("no room\nand more", encoding="utf-8")
    found = hf.compare([tmp_path / "old", tmp_path / "new"])
    assert found.labels == ["old/0", "old/1", "new/0", "new/1"]
    assert found.failed == {"old/2": "no room", "new/2": "no room"}
    pairs = found.pairs
    assert pairs.select("first", "other", "workload.rate_per_s").rows() == [
        ("old/0", "new/0", "2.0"),
        ("old/1", "new/1", "12.0"),
    ]
    ratio = results["fast"].summary["ttft_s"]["p50"] / results["slow"].summary["ttft_s"]["p50"]
    assert pairs["ttft_s.p50"][0] == pytest.approx(ratio)
    page = read_page(found.report(tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "Job by job" in page.text
    assert page.loaded == []


def test_the_page_has_the_figures_the_reasons_and_the_distributions(
    found: hf.Comparison, results: dict[str, hf.Result], tmp_path: Path
) -> None:
    page = read_page(found.report(tmp_path).read_text(encoding="utf-8"))
    assert (tmp_path / "compare.html").exists()
    assert results["apart"].summary["limits"]["text"] in page.text
    assert results["apart"].summary["why"]["text"] in page.text
    assert page.row("decode")[1] == "queue"
    assert len(page.charts) == 1 + 3 + 3


@pytest.mark.parametrize("names", [[], ["missing"], ["empty", "empty"]])
def test_fewer_than_two_results_are_refused(names: list[str], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(HermesFlowError, match="expected"):
        hf.compare([tmp_path / name for name in names])


def test_the_same_folder_twice_is_refused(results: dict[str, hf.Result], tmp_path: Path) -> None:
    results["slow"].write(tmp_path / "a")
    with pytest.raises(HermesFlowError, match=rf"^'{re.escape(str(tmp_path))}/a' names two runs"):
        hf.compare([tmp_path / "a", tmp_path / "a"])
