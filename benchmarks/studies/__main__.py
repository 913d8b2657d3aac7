"""Runs studies and writes their pages: python -m benchmarks.studies [NAME …] [--keep FOLDER].

With ``--keep`` the sweeps stay in FOLDER, and a sweep that is there already is not run again.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks.studies.pages import STUDIES, write_page
from benchmarks.studies.running import run_sweep


def main() -> None:
    """Run the studies that the arguments name, or all of them."""
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
            folder = (root / name).resolve()
            write_page(name, STUDIES[name](run_sweep(name, folder), folder))
            print(f"docs/studies/{name}.md")


if __name__ == "__main__":
    main()
