"""Writes the accuracy of power and energy into docs/energy.md; docs/accuracy.md has the same figures with details.

``python -m benchmarks.energy [--data DATA] [--check | --details]``, about a minute. With ``--check`` nothing is
written, and the exit status is 1 where the page is not what the simulator says today. ``--details`` prints the
section of docs/accuracy.md, and writes nothing.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.energy_errors import Found, measure
from benchmarks.energy_tables import section, summary
from benchmarks.processes import ROOT
from benchmarks.wrapping import wrapped

PAGE = ROOT / "docs" / "energy.md"
BEGIN, END = "<!-- errors of energy: python -m benchmarks.energy -->", "<!-- end of the errors of energy -->"


def with_errors(page: str, part: str) -> str:
    """Return the page with its generated part replaced by ``part``; raises ValueError where it has no such place."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"docs/energy.md: expected a part between {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{part}\n\n{END}{after}"


def update_page(found: Found, *, write: bool) -> None:
    """Write the errors into docs/energy.md, or end the process with status 1 if the page has others."""
    before = PAGE.read_text(encoding="utf-8")
    text = with_errors(before, summary(found))
    if write:
        PAGE.write_text(text, encoding="utf-8")
    elif text != before:
        sys.exit("docs/energy.md is not what the simulator says; python -m benchmarks.energy writes it anew")


def main() -> None:
    """Write the part of docs/energy.md, or compare with it."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--check", action="store_true", help="compare with the page, write nothing")
    parser.add_argument("--details", action="store_true", help="print the section of docs/accuracy.md")
    options = parser.parse_args()
    found = measure(options.data)
    if options.details:
        print("\n".join(wrapped(part.strip("\n")) + "\n" for part in section(found)))
        return
    update_page(found, write=not options.check)


if __name__ == "__main__":
    main()
