"""Tables of figures in the pages: which runs their rows are of, and which figures their cells have.

A comment right before a table says both, and the last columns of the table are written from it::

    <!-- rows: hermes-flow -m hardware=l40s,h100_sxm
    cells: {ttft_s.p99:time} | {100*slo.attainment:.1f} % -->

``rows`` has one or several commands, and each of their runs, or jobs of a sweep, is a row, in their order. ``as
above`` stands for the commands of the block before. A line ``jobs: 2,0,1`` after the commands gives another order,
or chooses some. Tables with ``rows, slow:`` take minutes, and are written with ``--slow`` only.

A cell has figures of the summary by their dotted names (``docs/metrics.md``), also products and quotients of them;
``A or B`` is B where a run has no A, ``none`` is –, and ``*`` in a name takes the least of all. Formats are those
of Python, ``time`` for seconds in a fitting unit, ``%`` and ``.1%`` for a share, and ``met`` for a verdict. ``#2``
before a figure means that it is of the second run of the row: a row then has as many runs as the largest such
number says. ``=`` leaves a cell as it is: nothing writes it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.sample_pages import Cells, Sample, commands_before
from hermes_flow.metrics.number_text import UNKNOWN, duration, percent

KEPT = "="
_TABLE = re.compile(
    r"^<!-- rows(?:, (slow))?: (.+?)\n(?:jobs: ([\d,]+)\n)?cells: ([^\n]+?) -->\n((?:\|[^\n]*\n)+)",
    re.MULTILINE | re.DOTALL,
)
_FIGURE = re.compile(r"\{(?:#(\d+) )?([^{}:]+)(?::([^{}]*))?\}")
_FOLDER = re.compile(r"hydra\.(?:run|sweep)\.dir=(\S+)")
_MISSING = object()
_FORMS: dict[str, Callable[[Any], str]] = {
    "time": duration,
    "%": percent,
    ".1%": lambda share: f"{100 * share:.1f} %",
    "met": lambda met: "met" if met else "missed",
}
_HEADER = 2  # the lines of a table before its rows


def tables(page: Path) -> Iterator[Sample]:
    """Yield the tables of a page that say what their rows are of."""
    text = page.read_text(encoding="utf-8")
    for number, found in enumerate(_TABLE.finditer(text)):
        commands = commands_before(text, found.start()) if found[2].strip() == "as above" else found[2]
        lines = [" ".join(part.split()) for part in re.split(r"\n(?=hermes-flow )", commands)]
        runs = [
            _with_folder(re.sub(r" # .*", "", line), f"outputs/rows-{number}-{place}")
            for place, line in enumerate(lines)
        ]
        yield Sample(
            page=page,
            line=text.count("\n", 0, found.start(5)) + 1,
            start=found.start(5),
            shown=found[5],
            scripts=tuple(command for command, _ in runs),
            cells=Cells(
                patterns=tuple(cell.strip() for cell in found[4].split("|")),
                folders=tuple(folder for _, folder in runs),
                slow=found[1] is not None,
                jobs=tuple(int(job) for job in found[3].split(",")) if found[3] else None,
            ),
        )


def _with_folder(command: str, folder: str) -> tuple[str, str]:
    """Return a command and the folder of its results, which is ``folder`` unless the command names one."""
    named = _FOLDER.search(command)
    if named is not None:
        return command, named[1]
    kind = "sweep" if " -m " in command else "run"
    return f"{command} hydra.{kind}.dir={folder}", folder


def kept(table: Sample) -> list[str]:
    """Return the headings of the columns that nothing writes."""
    headings, patterns = _cells(table.shown.splitlines()[0]), table.cells.patterns if table.cells else ()
    last = headings[len(headings) - len(patterns) :]
    return [heading for heading, pattern in zip(last, patterns, strict=True) if pattern == KEPT]


def filled(table: Sample, folder: Path) -> str:
    """Return a table with the figures of the results in ``folder``; raises RuntimeError where they do not fit it."""
    assert table.cells is not None
    runs = [run for name in table.cells.folders for run in _summaries(folder / name)]
    if table.cells.jobs is not None:
        runs = [runs[job] for job in table.cells.jobs if job < len(runs)]
    lines = table.shown.splitlines()
    figures = [found for pattern in table.cells.patterns for found in _FIGURE.finditer(pattern)]
    each = max((int(found[1] or 1) for found in figures), default=1)
    rows = len(lines) - _HEADER
    if len(runs) != each * rows:
        raise RuntimeError(f"{len(runs)} results do not fit {rows} rows of {each} each")
    for place in range(rows):
        line = lines[_HEADER + place]
        lines[_HEADER + place] = _row(line, table.cells.patterns, runs[each * place : each * (place + 1)])
    return "\n".join(lines) + "\n"


def _row(line: str, patterns: Sequence[str], runs: Sequence[dict[str, Any]]) -> str:
    cells = _cells(line)
    for place, pattern in enumerate(patterns, len(cells) - len(patterns)):
        if pattern != KEPT:
            cells[place] = _FIGURE.sub(lambda found: _text(found, runs), pattern)
    return "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|"


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")]


def _summaries(folder: Path) -> list[dict[str, Any]]:
    """Return the summaries of a run, or of the jobs of a sweep in their order."""
    jobs = sorted((path for path in folder.glob("*") if path.name.isdigit()), key=lambda path: int(path.name))
    files = [place / "summary.json" for place in jobs or [folder]]
    if not all(file.is_file() for file in files):
        raise RuntimeError(f"its commands left no results in {folder.name}")
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def _text(found: re.Match[str], runs: Sequence[dict[str, Any]]) -> str:
    """Return a figure as the cell shows it; – where the run has none."""
    summary = runs[int(found[1] or 1) - 1]
    parts = re.split(r"(?<!\.)([*/])", found[2])
    value = _value(parts[0], summary)
    for sign, names in zip(parts[1::2], parts[2::2], strict=True):
        other = _value(names, summary)
        if value is not None:
            value = None if other is None else value * other if sign == "*" else value / other
    if value is None:
        return UNKNOWN
    form = found[3] or ""
    return _FORMS[form](value) if form in _FORMS else format(value, form)


def _value(names: str, summary: dict[str, Any]) -> Any:
    """Return a number, or the first figure of a summary that there is; None after ``or none``."""
    for name in names.strip().split(" or "):
        if re.fullmatch(r"[\d.]+", name):
            return float(name)
        if name == "none":
            return None
        found = _figure(name.split("."), summary)
        if found is not _MISSING:
            return found
    raise RuntimeError(f"the summary has no figure {names.strip()!r}")


def _figure(name: Sequence[str], found: Any) -> Any:
    """Return a figure by the parts of its name; keys may have dots in themselves, and * is the least of all."""
    while name:
        if name[0] == "*" and isinstance(found, dict):
            return min(_figure(name[1:], part) for part in found.values())
        sizes = (size for size in range(len(name), 0, -1) if ".".join(name[:size]) in found)
        size = next(sizes, None) if isinstance(found, dict) else None
        if size is None:
            return _MISSING
        found, name = found[".".join(name[:size])], name[size:]
    return found
