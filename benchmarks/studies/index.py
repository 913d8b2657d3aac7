"""Writes the list of studies: how many findings agree, how many jobs each has, and the CPU seconds that it takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.studies.study import table

BEGIN, END = "<!-- The list: python -m benchmarks.studies writes it. -->", "<!-- The end of the list. -->"
_HEADS = ("study", "findings that agree", "jobs", "CPU seconds")


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the list; ``agree`` is a dash where the paper has no finding, ``cpu_s`` where it is not known."""

    agree: str
    jobs: str
    cpu_s: str


def entries_of(page: str) -> dict[str, Entry]:
    """Return the rows of a page's list by the name of the study."""
    _, _, rest = page.partition(BEGIN)
    rows = [line.strip("| ").split(" | ") for line in rest.partition(END)[0].splitlines() if "](" in line]
    return {cells[0].partition("(")[2].removesuffix(".md)"): Entry(*cells[1:]) for cells in rows}


def write_list(page: Path, names: Sequence[str], measured: Mapping[str, Entry]) -> None:
    """Write the rows of ``measured`` into the list of ``page``, and keep those of other studies; add the sum."""
    text = page.read_text(encoding="utf-8")
    known = {**entries_of(text), **measured}
    rows = []
    for name in names:
        if name in known:
            title = (
                (page.parent / f"{name}.md").read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
            )
            entry = known[name]
            rows.append((f"[{title}]({name}.md)", entry.agree, entry.jobs, entry.cpu_s))
    jobs, total = (sum(int(cells[place]) for cells in rows if cells[place].isdigit()) for place in (2, 3))
    counts = [[int(word) for word in cells[1].split(" of ")] for cells in rows if " of " in cells[1]]
    agree, compared = (sum(count[place] for count in counts) for place in (0, 1))
    rows.append(("all", f"{agree} of {compared}", str(jobs), str(total)))
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n\n{table(_HEADS, rows)}\n\n{END}{after}", encoding="utf-8")
