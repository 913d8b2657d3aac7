"""The package assumes no locale, file system or platform: files are UTF-8, and the names of paths are portable."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from cli.command import ROOT, hermes_flow

MODULES = sorted((ROOT / "hermes_flow").rglob("*.py"))
RESERVED = {
    "con",
    "prn",
    "aux",
    "nul",
    *(f"{name}{digit}" for name in ("com", "lpt") for digit in range(1, 10)),
}
UNIX_ONLY = {"fcntl", "grp", "pwd", "resource", "termios", "posix"}


def text_calls(tree: ast.AST) -> Iterator[ast.Call]:
    """Yield the calls that read or write text: read_text, write_text, and open without a binary mode."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in ("read_text", "write_text") and isinstance(node.func, ast.Attribute):
            yield node
        elif name == "open" and getattr(getattr(node.func, "value", None), "id", "") not in ("os", "gzip"):
            modes = [argument for argument in node.args if isinstance(argument, ast.Constant)]
            if not any("b" in str(mode.value) for mode in modes):
                yield node


def test_text_files_are_read_and_written_as_utf_8() -> None:
    without = [
        f"{path.relative_to(ROOT)}:{call.lineno}"
        for path in MODULES
        for call in text_calls(ast.parse(path.read_text(encoding="utf-8")))
        if not any(keyword.arg == "encoding" for keyword in call.keywords)
    ]
    assert without == []


def test_modules_of_one_platform_are_imported_where_they_are_used() -> None:
    found = []
    for path in MODULES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                found += [path for each in node.names if each.name in UNIX_ONLY]
            elif isinstance(node, ast.ImportFrom) and node.module in UNIX_ONLY:
                found.append(path)
    assert found == []


def test_names_of_files_are_legal_and_distinct_on_every_file_system() -> None:
    paths = [
        path.relative_to(ROOT).as_posix()
        for folder in ("conf", "hermes_flow", "docs", "tests", "benchmarks")
        for path in (ROOT / folder).rglob("*")
        if "__pycache__" not in path.parts
    ]
    assert len({path.casefold() for path in paths}) == len(paths)
    assert [path for path in paths if set(path) & set('<>:"\\|?*') or not path.isascii()] == []
    assert [path for path in paths if Path(path).stem.lower() in RESERVED] == []


def test_a_terminal_that_knows_only_ascii_and_a_folder_with_other_letters_are_no_hindrance(
    tmp_path: Path,
) -> None:
    place = tmp_path / "Größe 1 und 2, [neu]"
    place.mkdir()
    (place / "anfragen ä.csv").write_text(
        "arrival_s,input_tokens,output_tokens\n0.0,100,8\n", encoding="utf-8"
    )
    plain = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    done = hermes_flow(
        place,
        "workload=trace", "workload.path='anfragen ä.csv'", "pipeline=llm", "hydra.run.dir='läuft hier'",
        "output.report=true", **plain,
    )  # fmt: skip
    assert done.status == 0, done.err
    assert "1 of 1 completed" in done.out
    page = (place / "läuft hier" / "report.html").read_text(encoding="utf-8")
    assert "anfragen ä.csv" in page
