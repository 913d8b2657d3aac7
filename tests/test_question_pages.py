"""Every command of docs/questions runs, in its order and with the files of its page, at a smaller size."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.question_pictures import DRAWN
from benchmarks.question_runs import PAGES, commands, run_page

QUESTIONS = sorted(PAGES.glob("*.md"))
FEW = "workload.requests=25"
SMALLER = {
    "plan": [FEW, "task.hardware=[h100_sxm]", "task.tensor_parallel=[1]", "task.headrooms=0"],
    "capacity": ["workload.requests=1500", "task.tolerance=0.2", "task.seeds=1"],
    "compare": [],
    "validate": [],
}


def smaller(words: list[str]) -> list[str]:
    """Return the command with fewer requests, and in a sweep with one rate and at most two seeds."""
    if "workload=trace" in words:
        return words
    shortened = [re.sub(r"^(workload.rate_per_s=[^,]+),.*$|^(seed=0,1),.*$", r"\1\2", word) for word in words]
    if "experiment=kv_reuse" in words:
        shortened.append("workload.rate_per_s=1")
    return [*shortened, *SMALLER.get(words[0], [FEW])]


@pytest.mark.parametrize("page", QUESTIONS, ids=lambda page: page.stem)
def test_the_commands_of_a_page_run_one_after_the_other(page: Path, tmp_path: Path) -> None:
    said = run_page(page, tmp_path, smaller)
    assert len(said) == len(commands(page)) >= 1
    assert all("Written to outputs/" in text for text in said)


def test_every_page_has_a_picture_that_is_drawn_from_its_results() -> None:
    assert [page.stem for page in QUESTIONS] == sorted(DRAWN)
    for page in QUESTIONS:
        assert f"../pictures/question_{page.stem}.svg" in page.read_text(encoding="utf-8")
        assert (PAGES.parent / "pictures" / f"question_{page.stem}.svg").is_file()
