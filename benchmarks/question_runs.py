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
_FILE = re.compile(r"# (my_[\w./-]+)(?::.*)?\n")
_NAMED = re.compile(r"`(my_[\w./-]+)`:\n\n```(yaml|csv)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[list[str]]:
    """Return the words of each ``hermes-flow`` command of a page, without the name of the command."""
    blocks = [text for kind, text in _BLOCK.findall(page.read_text(encoding="utf-8")) if kind == "sh"]
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("hermes-flow ")]


def write_files(page: Path, folder: Path) -> list[Path]:
    """Write the files that a page shows, and return them.

    Each is a block whose first line is its name as a comment, or one after its name and a colon.
    """
    text = page.read_text(encoding="utf-8")
    files = [(name, shown) for name, _, shown in _NAMED.findall(text)]
    for kind, shown in _BLOCK.findall(text):
        named = _FILE.match(shown)
        if kind in ("csv", "yaml") and named is not None:
            files.append((named[1], shown[named.end() :] if kind == "csv" else shown))
    for name, shown in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(shown, encoding="utf-8")
    return [folder / name for name, _ in files]


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
