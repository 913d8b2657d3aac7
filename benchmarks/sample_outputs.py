"""Runs the commands of README and docs again, and writes what they print: ``python -m benchmarks.sample_outputs``.

Tables that say which runs their rows are of are written as well (``benchmarks.sample_tables``).

Arguments are pages; without any, all are taken. ``--check`` writes nothing, and the exit status is 1 where a sample
is not what its command prints today. Samples that are not run again are listed with the reason that their page gives
(``<!-- not rerun: WHY -->``). Lines with ! changed by more than 5 %, or in words: the prose around them may be wrong,
and what it quotes of the old numbers is listed.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks.processes import ROOT
from benchmarks.sample_pages import Sample, pages, samples
from benchmarks.sample_runs import DATA, MEASURED, TooLongError, folder_of, printed
from benchmarks.sample_tables import filled, kept, tables
from benchmarks.sample_text import NotShownError, differences, large_changes, refreshed

_TELLING = re.compile(r"\d\.\d|\d\d.*(µs|ms|s|min|kJ|J|tok/s|requests/s)$")  # and not 9 % or 128
_WRITTEN = re.compile(r"^```.*?^```$|^<!-- rows[:,].*? -->\n(\|[^\n]*\n)+", re.MULTILINE | re.DOTALL)


@dataclass(slots=True)
class Checked:
    """What became of the samples of a page: those that are up to date, and a text for each of the others."""

    page: Path
    fresh: list[Sample] = field(default_factory=list)
    stale: list[tuple[Sample, str]] = field(default_factory=list)
    """Samples, and what they should be."""
    failed: list[tuple[Sample, str]] = field(default_factory=list)
    left: list[tuple[Sample, str]] = field(default_factory=list)
    """Samples that are not run again, and why."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Check or write the samples; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pages", nargs="*", type=Path, help="README.md, docs/why.md, …; all without any")
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 if a sample is stale")
    parser.add_argument("--processes", type=int, default=2, help="pages at a time")
    parser.add_argument("--slow", action="store_true", help="tables whose runs take minutes, too")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds that a command may take")
    options = parser.parse_args(arguments)
    with ThreadPoolExecutor(options.processes) as threads:
        found = threads.map(
            partial(check_page, limit_s=options.limit, slow=options.slow), options.pages or pages()
        )
        checked = []
        for page in found:  # as they end, in their order
            checked.append(page)
            for line in described(page):
                print(line, flush=True)
            if page.stale and not options.check:
                write(page)
    counts = [
        sum(len(getattr(page, kind)) for page in checked) for kind in ("fresh", "stale", "failed", "left")
    ]
    done = "stale" if options.check else "written"
    print(f"{counts[0]} up to date, {counts[1]} {done}, {counts[2]} failed, {counts[3]} not run again")
    return int(counts[2] > 0 or (options.check and counts[1] > 0))


def check_page(page: Path, limit_s: float, slow: bool) -> Checked:
    """Run what the samples of a page need, each command once, and compare what it prints."""
    checked = Checked(page)
    said: dict[str, str] = {}
    with folder_of(page) as folder:
        for sample in sorted([*samples(page), *tables(page)], key=lambda each: each.start):
            reason = _left_out(sample, slow)
            if reason is not None:
                checked.left.append((sample, reason))
                continue
            try:
                new = _today(sample, folder, said, limit_s)
            except (TooLongError, NotShownError, RuntimeError) as error:
                checked.failed.append((sample, str(error)))
                continue
            if new == sample.shown:
                checked.fresh.append(sample)
            else:
                checked.stale.append((sample, new))
    return checked


def _left_out(sample: Sample, slow: bool) -> str | None:
    """Return why a sample is not run again here; None for one that is."""
    if sample.mark is not None:
        return sample.mark
    if sample.cells is not None and sample.cells.slow and not slow:
        return "it takes minutes (--slow)"
    if any(MEASURED in script for script in sample.scripts) and not DATA.is_dir():
        return f"there is no measured data at {DATA} (HERMES_FLOW_DATA)"
    return None


def _today(sample: Sample, folder: Path, said: dict[str, str], limit_s: float) -> str:
    """Return the sample as it should be; ``said`` keeps what each script of the page printed."""
    if not sample.scripts:
        raise RuntimeError("no command before it, and no comment <!-- not rerun: WHY -->")
    for script in sample.scripts:
        if script not in said:
            said[script] = printed(script, folder, limit_s)
    text = said[sample.scripts[-1]]
    if sample.cells is not None:
        if text.startswith("hermes-flow: "):
            raise RuntimeError(f"its command ends with: {text.strip()}")
        return filled(sample, folder)
    if text.startswith(("hermes-flow: ", "Traceback", "sh: ")) and not sample.shown.startswith(text[:12]):
        raise RuntimeError(f"its command ends with: {text.strip()}")
    return refreshed(sample.shown, text)


def write(checked: Checked) -> None:
    """Write the samples of a page that are stale as they should be.

    Raises RuntimeError where somebody has edited the page meanwhile.
    """
    text = checked.page.read_text(encoding="utf-8")
    for sample, new in reversed(checked.stale):
        if not text.startswith(sample.shown, sample.start):
            raise RuntimeError(f"{checked.page} was edited while its commands ran; run them again")
        text = text[: sample.start] + new + text[sample.start + len(sample.shown) :]
    checked.page.write_text(text, encoding="utf-8")


def described(checked: Checked) -> list[str]:
    """Return what there is to say about a page, line by line."""
    lines = [f"{sample.place}: up to date" for sample in checked.fresh]
    lines += [f"{sample.place}: not run again: {reason}" for sample, reason in checked.left]
    lines += [f"{sample.place}: FAILED: {reason}" for sample, reason in checked.failed]
    lines += [
        f"{sample.place}: columns that nothing writes: {', '.join(names)}"
        for sample in [*checked.fresh, *(stale for stale, _ in checked.stale)]
        if sample.cells is not None and (names := kept(sample))
    ]
    quoted: list[str] = []
    for sample, new in checked.stale:
        lines.append(f"{sample.place}: stale")
        for was, is_now, large in differences(sample.shown, new):
            mark = "!" if large else " "
            lines += [f"  {mark} {sign} {line}" for sign, line in (("-", was), ("+", is_now)) if line]
            quoted += [number for number in large_changes(was, is_now) if _TELLING.search(number)]
    return lines + _quotes(checked.page, dict.fromkeys(quoted))


def _quotes(page: Path, numbers: dict[str, None]) -> list[str]:
    """Return the lines of prose that have one of the numbers which are another one now."""
    text = page.read_text(encoding="utf-8")
    prose = _WRITTEN.sub(lambda block: "\n" * block[0].count("\n"), text).splitlines()
    name = page.resolve()
    shown = name.relative_to(ROOT) if name.is_relative_to(ROOT) else name
    found = []
    for place, line in enumerate(prose, 1):
        said = [number for number in numbers if re.search(rf"(?<![\w.]){re.escape(number)}(?![\w])", line)]
        if said:
            found.append(f"  {shown}:{place} says {', '.join(said)}, which changed: {line.strip()}")
    return found


if __name__ == "__main__":
    sys.exit(main())
