"""The README and the pages of docs/ are true where a machine can tell: commands compile, links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import hermes_flow as hf
from hermes_flow.tasks import verbs

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NEEDS_FILES = (
    "--",
    "-m",
    "my_",
    "../shared",
    "hydra.",
    "two_choices",
    "one_by_one",
    "short_classes",
    "chat_archived",
    "evening",
    "outputs/",
    "run.requests",
    "proxy",
)


def commands(page: Path) -> list[str]:
    """The page's `hermes-flow` commands that need nothing but the package, without the command's name."""
    blocks = re.findall(
        r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    lines += re.findall(
        r"^\|.*\| `(hermes-flow [^`]+)` \|$", page.read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    found = [line.removeprefix("hermes-flow").strip() for line in lines if line.startswith("hermes-flow")]
    return [line for line in found if not any(word in line for word in NEEDS_FILES)]


@pytest.mark.parametrize(("page", "command"), [(p.name, c) for p in PAGES for c in commands(p)])
def test_every_command_of_the_pages_compiles(page: str, command: str) -> None:
    words = [f"task={word}" if word in verbs.names else word for word in shlex.split(command, comments=True)]
    config = hf.compose(words)
    if (
        "task=plan" not in words
    ):  # a plan compiles designs of its own, and the configuration alone may not fit
        assert len(hf.compile(config).requests) >= 1


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    heads = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    heads = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", head) for head in heads]
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"], ids=lambda p: p.name
)
def test_every_link_to_a_heading_finds_it(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", page.read_text(encoding="utf-8"))
    targets = [((page.parent / file).resolve() if file else page, anchor) for file, anchor in links]
    assert [
        (at.name, anchor) for at, anchor in targets if at.suffix == ".md" and anchor not in anchors(at)
    ] == []
