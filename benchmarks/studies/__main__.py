"""Runs studies and writes their pages: python -m benchmarks.studies [NAME …] [--keep FOLDER].

With ``--keep`` the sweeps stay in FOLDER, and a sweep that is there already is not run again.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
from pathlib import Path

from benchmarks.studies.index import Entry, entries_of, write_list
from benchmarks.studies.pages import DOCS, STUDIES, write_page
from benchmarks.studies.running import run_sweep
from benchmarks.studies.study import agreement

LIST = DOCS / "studies" / "index.md"


def main() -> None:
    """Run the studies that the arguments name, or all of them, and print the CPU seconds of each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(STUDIES)}")
    parser.add_argument("--keep", type=Path, metavar="FOLDER")
    given = parser.parse_args()
    unknown = [name for name in given.names if name not in STUDIES]
    if unknown:
        parser.error(f"there is no study {unknown[0]!r}; expected one of {', '.join(STUDIES)}")
    with tempfile.TemporaryDirectory() as place:
        root = given.keep or Path(place)
        for name in given.names or STUDIES:
            _run(name, (root / name).resolve())


def _run(name: str, folder: Path) -> None:
    """Run one study in ``folder``; a sweep that is there already keeps the CPU seconds of the run before."""
    kept, before_s = folder.exists(), _cpu_s()
    sweep = run_sweep(name, folder)
    outcome = STUDIES[name](sweep, folder)
    write_page(name, outcome)
    spent = str(round(_cpu_s() - before_s))
    if kept:
        known = entries_of(LIST.read_text(encoding="utf-8")).get(name)
        spent = "–" if known is None else known.cpu_s
    write_list(LIST, list(STUDIES), {name: Entry(agreement(outcome.findings), str(len(sweep)), spent)})
    print(f"docs/studies/{name}.md: {len(sweep)} jobs, {spent} CPU seconds", flush=True)


def _cpu_s() -> float:
    """Return the CPU seconds of this process and of all that it has started and that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


if __name__ == "__main__":
    main()
