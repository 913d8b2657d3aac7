"""A file that prose names exists: in comments, docstrings, pages and configurations."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# A path from the root of the repository; not one inside another project (``DeepEP/docs/legacy.md``), nor a pattern.
PATH = re.compile(
    r"(?<![\w./<>{*:-])((?:hermes_flow|tests|benchmarks|conf|docs)/(?:[\w-]+/)*[\w-]+\.(?:py|yaml|md|csv|toml))(?!\w)"
)
MADE_BY_THE_READER = {"tests/routing/test_two_choices.py"}  # docs/extend.md shows how to write it
ELSEWHERE = re.compile(r"https?://\S+, \S+")  # the address of another project, and a file of it
FOLDERS = ("hermes_flow", "tests", "benchmarks", "conf", "docs")


def named_files(text: str) -> set[str]:
    """Return the paths in a text, without those that have a name to be filled in."""
    return {path for path in PATH.findall(ELSEWHERE.sub("", text)) if "NAME" not in path}


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_file_of_the_repository_that_a_text_names_exists(folder: str) -> None:
    texts = [path for kind in ("py", "md", "yaml") for path in (ROOT / folder).rglob(f"*.{kind}")]
    texts += ROOT.glob("*.md") if folder == "docs" else []
    assert texts
    missing = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in texts
        for name in named_files(path.read_text(encoding="utf-8")) - MADE_BY_THE_READER
        if not (ROOT / name).exists()
    }
    assert missing == set()


def test_a_name_is_found_in_prose_and_not_in_other_projects() -> None:
    text = "see tests/test_pages.py, ``docs/cost.md`` and DeepEP/docs/legacy.md; conf/model/NAME.yaml"
    assert named_files(text) == {"tests/test_pages.py", "docs/cost.md"}
