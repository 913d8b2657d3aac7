"""Runs the commands of a page in docs/questions, with the files that the page shows, in a folder of their own."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from hermes_flow.cli import main

PAGES = Path(__file__).resolve().parents[1] / "docs" / "questions"

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# (my_\S+)\n")


def commands(page: Path) -> list[list[str]]:
    """Return the words of each ``hermes-flow`` command of a page, without the name of the command."""
    blocks = [text for kind, text in _BLOCK.findall(page.read_text(encoding="utf-8")) if kind == "sh"]
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("hermes-flow ")]


def write_files(page: Path, folder: Path) -> list[Path]:
    """Write the files that a page shows, each a block whose first line is its name as a comment."""
    written = []
    for kind, text in _BLOCK.findall(page.read_text(encoding="utf-8")):
        named = _FILE.match(text)
        if kind in ("csv", "yaml") and named is not None:
            path = folder / named[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text[named.end() :] if kind == "csv" else text, encoding="utf-8")
            written.append(path)
    return written


def run_page(
    page: Path, folder: Path, shortened: Callable[[list[str]], Sequence[str]] = lambda words: words
) -> list[str]:
    """Run all commands of a page in ``folder``; return what each printed. ``shortened`` may change their words."""
    write_files(page, folder)
    said = []
    with contextlib.chdir(folder):
        for words in commands(page):
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                main(list(shortened(words)))
            said.append(printed.getvalue())
    return said
