"""Runs many random cases and prints what broke: ``python -m benchmarks.fuzz [CASES] [FIRST_SEED] [SECONDS]``."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

from benchmarks.fuzz.case import SHARES
from benchmarks.fuzz.chunk import Counts, run_chunk

_CHUNK = 20  # cases that a process takes at once


def main(cases: int = 10_000, first: int = 0, seconds: float = 1800.0) -> int:
    """Run the cases on all cores and print the counts; return 1 if one broke a promise."""
    began = time.monotonic()
    deadline = time.time() + seconds
    counts: Counts = Counter()
    chunks = [
        (start, min(start + _CHUNK, first + cases), deadline) for start in range(first, first + cases, _CHUNK)
    ]
    workers = os.cpu_count() or 1
    with ProcessPoolExecutor(workers, max_tasks_per_child=25) as pool:
        for found, texts in pool.map(run_chunk, chunks):
            counts += found
            for text in texts:
                print(text, flush=True)
    for line in _table(counts, time.monotonic() - began):
        print(line)
    return 1 if any(what == "broken" for _, what in counts) else 0


def _table(counts: Counts, took: float) -> Iterator[str]:
    """Yield the counts as rows of Markdown."""
    yield "| kind | cases | ran | refused | broke a promise |\n|---|---:|---:|---:|---:|"
    whole: Counter[str] = Counter()
    for kind in SHARES:
        row = {what: counts[kind, what] for what in ("cases", "ran", "refused", "broken")}
        whole.update(row)
        yield f"| {kind} | " + " | ".join(f"{value:,}" for value in row.values()) + " |"
    yield "| all | " + " | ".join(f"{whole[what]:,}" for what in ("cases", "ran", "refused", "broken")) + " |"
    yield f"{whole['cases']:,} cases in {took:,.0f} s"


if __name__ == "__main__":
    sys.exit(main(*(int(argument) for argument in sys.argv[1:])))
