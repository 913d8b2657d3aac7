"""Sample outputs in the pages of the documentation: which commands they are of, and why some are not run again.

A page shows a command in a block ``sh`` (or ``bash``), and what it prints in a block ``text`` right after it. Two
comments before one of the blocks say more:

- ``<!-- not rerun: WHY -->``: this sample is not run again.
- ``<!-- beforehand: COMMANDS -->``: commands that make a file which the page takes for granted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import ROOT

COMMANDS = ("sh", "bash")
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MARK = re.compile(r"<!-- not rerun: (.+?) -->", re.DOTALL)
_BEFOREHAND = re.compile(r"<!-- beforehand: (.+?) -->", re.DOTALL)
_ONLY_COMMENTS = re.compile(r"\s*(<!--.*?-->\s*)*", re.DOTALL)
_INSTALLATION = re.compile(r"^python3? -m venv .*$|^python3? -m pip [^&\n]*(&& )?", re.MULTILINE)
_KEPT_FOLDER = re.compile(r"hydra\.(?:run|sweep)\.dir=(outputs/[\w/-]+)")
_NAMED_FOLDER = re.compile(r"outputs/[\w/-]+")


@dataclass(frozen=True, slots=True)
class Cells:
    """The figures in the last columns of a table (``benchmarks.sample_tables``).

    ``folders`` are those of its runs and sweeps. ``jobs`` are the runs of its rows, in their order; null for all.
    ``slow`` is a table whose runs take minutes.
    """

    patterns: tuple[str, ...]
    folders: tuple[str, ...]
    slow: bool
    jobs: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Sample:
    """A block of sample output, or a table: ``shown`` is its text, in ``page`` from the character ``start`` on.

    ``scripts`` are the commands that give it, after those that write what it reads. They are empty where ``mark``
    says why the sample is not run again, or where the page shows no command before it.
    """

    page: Path
    line: int
    start: int
    shown: str
    scripts: tuple[str, ...]
    mark: str | None = None
    cells: Cells | None = None
    """What a table of figures has in its cells; null for what a command prints."""

    @property
    def place(self) -> str:
        """The page and the line where the block begins, as ``docs/why.md:9``."""
        page = self.page.resolve()
        name = page.relative_to(ROOT).as_posix() if page.is_relative_to(ROOT) else str(self.page)
        return f"{name}:{self.line}"


def pages() -> list[Path]:
    """Return the README and all pages of docs."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def samples(page: Path) -> list[Sample]:
    """Return the sample outputs of a page in their order."""
    text = page.read_text(encoding="utf-8")
    return list(_samples(page, text, list(_BLOCK.finditer(text))))


def commands_before(text: str, place: int) -> str:
    """Return the commands of the last block that has any before a place of a page."""
    blocks = [block for block in _BLOCK.finditer(text, 0, place) if block[1] in COMMANDS]
    return script(blocks[-1][2]) if blocks else ""


def _samples(page: Path, text: str, blocks: Sequence[re.Match[str]]) -> Iterator[Sample]:
    ends = [0, *(block.end() for block in blocks)]
    commands = [script(block[2]) if block[1] in COMMANDS else "" for block in blocks]
    for place, block in enumerate(blocks):
        if block[1] != "text":
            continue
        between = text[ends[place] : block.start()]
        follows = place > 0 and bool(commands[place - 1]) and bool(_ONLY_COMMENTS.fullmatch(between))
        before = text[ends[place - 1] : blocks[place - 1].start()] if follows else ""
        marks = _MARK.findall(before + between)
        scripts: tuple[str, ...] = ()
        if follows and not marks:
            beforehand = tuple(found.strip() for found in _BEFOREHAND.findall(before))
            earlier = [found for found in commands[: place - 1] if found]
            scripts = (*beforehand, *_with_needed(commands[place - 1], earlier))
        yield Sample(
            page=page,
            line=text.count("\n", 0, block.start()) + 1,
            start=block.start(2),
            shown=block[2],
            scripts=scripts,
            mark=" ".join(marks[-1].split()) if marks else None,
        )


def script(block: str) -> str:
    """Return the commands of a block without those that install the package."""
    return _INSTALLATION.sub("", block.replace("\\\n", " ")).strip()


def _with_needed(last: str, earlier: Sequence[str]) -> tuple[str, ...]:
    """Return the last script after those of the page that write the folders of results which it names."""
    named = set(_NAMED_FOLDER.findall(last)) - set(_KEPT_FOLDER.findall(last))
    needed: list[str] = []
    for other in reversed(earlier):
        written = set(_KEPT_FOLDER.findall(other))
        if any(name == folder or name.startswith(f"{folder}/") for name in named for folder in written):
            named |= set(_NAMED_FOLDER.findall(other))
            needed.insert(0, other)
    return (*needed, last)
