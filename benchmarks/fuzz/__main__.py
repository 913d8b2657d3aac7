"""Runs many random cases and prints what broke: ``python -m benchmarks.fuzz [CASES] [FIRST_SEED] [SECONDS]``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed

from benchmarks.fuzz.case import SHARES
from benchmarks.fuzz.chunk import Counts

_CHUNK = 100  # cases of one process


def main(cases: int = 10_000, first: int = 0, seconds: float = 1800.0) -> int:
    """Run the cases on all cores and print the counts; return 1 if one broke a promise."""
    began = time.monotonic()
    deadline = time.time() + seconds
    counts: Counts = Counter()
    starts = range(first, first + cases, _CHUNK)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        ends = [min(start + _CHUNK, first + cases) for start in starts]
        running = [pool.submit(_in_a_process, *span, deadline) for span in zip(starts, ends, strict=True)]
        for ended in as_completed(running):
            found, texts = ended.result()
            counts += found
            for text in texts:
                print(text, flush=True)
    for line in _table(counts, time.monotonic() - began):
        print(line)
    return 1 if any(what == "broken" for _, what in counts) else 0


def _in_a_process(first: int, end: int, deadline: float) -> tuple[Counts, list[str]]:
    """Run a chunk in a process of its own, so that no case can hurt another; a process that dies is a fault."""
    if time.time() > deadline:
        return Counter(), []
    command = [sys.executable, "-m", "benchmarks.fuzz.chunk", str(first), str(end), str(deadline)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        counts: Counts = Counter({("overrides", "broken"): 1})
        return counts, [
            f"seeds {first} to {end - 1}: their process ended with {done.returncode}: {done.stderr[-800:]}"
        ]
    given = json.loads(done.stdout.splitlines()[-1])
    return Counter({(kind, what): count for kind, what, count in given["counts"]}), given["texts"]


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
