"""Every study's experiment runs in a small size, and its table counts what it should."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

import hermes_flow as hf
from benchmarks.studies.index import BEGIN, END, Entry, entries_of, write_list
from benchmarks.studies.pages import DOCS, STUDIES
from benchmarks.studies.running import PLANS, SEARCHES
from benchmarks.studies.study import Finding, findings_table
from benchmarks.studies.winners import PAPER, best_policies, cell
from hermes_flow.config.folders import config_folder
from hermes_flow.tasks.verb import verbs

EXPERIMENTS = config_folder() / "experiment"
OTHERS = {*SEARCHES, *PLANS, "host_gb"}  # host_gb needs a trace (tests/pools/llm/test_host_gb.py)


def jobs(name: str) -> list[list[str]]:
    """Return the overrides of the first and of the last job of an experiment."""
    file = OmegaConf.load(EXPERIMENTS / f"{name}.yaml")
    params: Any = OmegaConf.to_container(
        OmegaConf.select(file, "hydra.sweeper.params", default=OmegaConf.create())
    )
    values = []
    for key, text in params.items():
        given = f"{key}={text}"
        swept = OverridesParser.create().parse_override(given)
        texts = [str(value) for value in swept.sweep_string_iterator()] if swept.is_sweep_override() else []
        values.append([f"{key}={value}" for value in texts] or [given])
    ends = [[f"experiment={name}", *(own[place] for own in values)] for place in (0, -1)]
    return ends[:1] if ends[0] == ends[1] else ends


@pytest.mark.parametrize("name", sorted({path.stem for path in EXPERIMENTS.glob("*.yaml")} - OTHERS))
def test_the_first_and_the_last_job_of_an_experiment_run(name: str) -> None:
    for overrides in jobs(name):
        summary = hf.simulate(hf.compile(hf.compose([*overrides, "workload.requests=40"]))).summary
        assert summary["requests"]["completed"] == 40


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_of_a_study_finds_a_value(name: str) -> None:
    found = hf.capacity(hf.compose([*jobs(name)[-1], "workload.requests=60", "task.tolerance=0.5"]))
    assert found.value is not None
    assert found.value > 0


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_of_a_study_ranks_pairs(name: str, tmp_path: Path) -> None:
    small = ["workload.requests=250", "task.hardware=[b200_sxm]", "task.decode_hardware=[h200_sxm,b200_sxm]"]
    config = hf.compose([*jobs(name)[0], *small, "task.error_bars=0", "task.processes=1"])
    verbs.parse(config.task, "task").run(config, tmp_path)
    designs = pl.read_parquet(tmp_path / "plan.parquet")
    assert set(designs.filter(pl.col("rank").is_not_null())["decode_hardware"]) == {None, "h200_sxm"}


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_has_a_page_with_its_command_and_result(name: str) -> None:
    page = (DOCS / "studies" / f"{name}.md").read_text(encoding="utf-8")
    assert f"hermes-flow -m experiment={name}\n" in page
    assert f"(../pictures/study_{name}.svg)" in page
    assert (DOCS / "pictures" / f"study_{name}.svg").is_file()
    assert f"studies/{name}.md" in (DOCS / "index.md").read_text(encoding="utf-8")


def test_the_list_of_studies_counts_the_findings_of_the_pages() -> None:
    folder = DOCS / "studies"
    entries = entries_of((folder / "index.md").read_text(encoding="utf-8"))
    assert list(entries) == list(STUDIES)
    for name, entry in entries.items():
        page = (folder / f"{name}.md").read_text(encoding="utf-8")
        assert re.findall(r"^(\d+ of \d+) findings agree", page, re.M) == [entry.agree] * (entry.agree != "–")
    assert sum(int(entry.cpu_s) for entry in entries.values() if entry.cpu_s != "–") < 15 * 60


def test_a_list_keeps_the_rows_of_studies_that_did_not_run(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.md").write_text(f"# Study {name}\n", encoding="utf-8")
    page = tmp_path / "index.md"
    page.write_text(f"Before\n{BEGIN}\n{END}\nAfter\n", encoding="utf-8")
    write_list(page, ["one", "two"], {"one": Entry("2 of 4", "8", "30"), "two": Entry("–", "3", "5")})
    write_list(page, ["one", "two"], {"one": Entry("3 of 4", "8", "20")})
    text = page.read_text(encoding="utf-8")
    assert entries_of(text) == {"one": Entry("3 of 4", "8", "20"), "two": Entry("–", "3", "5")}
    assert "| all | 3 of 4 | 11 | 25 |" in text
    assert text.startswith("Before\n")
    assert text.endswith("After\n")


def job(cluster: str, ttft: float, tokens: float, joules: float) -> dict[str, Any]:
    return {
        "cluster": cluster,
        "ttft_s.mean": ttft,
        "throughput.steady.output_tokens_per_s": tokens,
        "energy.j_per_output_token": joules,
    }


def test_the_best_split_stands_for_disaggregation_and_ties_are_said() -> None:
    rows = [
        job("tp2x4_continuous", 0.10, 1000, 2.0),
        job("tp2x4_chunked", 0.20, 1010, 1.9),
        job("tp2x4_p1d3", 0.90, 400, 1.0),
        job("tp2x4_p3d1", 0.101, 600, 3.0),
    ]
    assert best_policies(rows, "TTFT") == {"C", "D"}  # 101 ms is within 2 % of 100 ms
    assert best_policies(rows, "throughput") == {"C", "K"}
    assert best_policies(rows, "throughput/energy") == {"D"}


def test_an_entry_of_the_paper_names_policies_by_load() -> None:
    both = cell("code plain", "large", "throughput", "D(M) K(H)")
    assert both.wins == {"M": frozenset("D"), "H": frozenset("K")}
    assert cell("conv RAG", "both", "throughput", "K|D").wins == dict.fromkeys("LMH", frozenset("KD"))
    assert len(PAPER) == 36


def test_findings_without_a_counterpart_are_not_counted() -> None:
    text = findings_table([Finding("a", "b", True), Finding("c", "d", False), Finding("e", "f", None)])
    assert text.startswith("1 of 2 findings agree.")


def test_a_page_keeps_its_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.studies import pages
    from benchmarks.studies.study import Outcome

    (tmp_path / "studies").mkdir()
    page = tmp_path / "studies" / "one.md"
    page.write_text(f"# One\n\nBefore.\n\n{pages.BEGIN}\nold\n{pages.END}\n\nAfter.\n", encoding="utf-8")
    monkeypatch.setattr(pages, "DOCS", tmp_path)
    pages.write_page("one", Outcome("| new |", ()))
    assert page.read_text(encoding="utf-8") == (
        f"# One\n\nBefore.\n\n{pages.BEGIN}\n\n| new |\n\n{pages.END}\n\nAfter.\n"
    )
