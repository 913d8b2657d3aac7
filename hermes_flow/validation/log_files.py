"""Finds the benchmark logs below a folder, and the runs in each."""

from __future__ import annotations

from pathlib import Path

from hermes_flow.workload.records.open_table import divided, runs_in

_KINDS = (".json", ".json.gz", ".jsonl", ".jsonl.gz", ".ndjson", ".csv", ".csv.gz", ".tsv", ".tsv.gz")
_LARGEST = 2_000_000_000  # bytes; larger files are no logs of a benchmark


def runs_of(path: Path) -> list[Path]:
    """Return a path for each run of a log, as in ``FILE@2`` where there are several; the path itself for others."""
    if divided(str(path))[1] is not None:
        return [path]
    count = runs_in(path)
    return (
        [path] if count <= 1 else [path.with_name(f"{path.name}@{number}") for number in range(1, count + 1)]
    )


def logs_below(folder: Path) -> list[Path]:
    """Return the runs of all benchmark logs in a folder and its folders, in the order of their names."""
    found: list[Path] = []
    for path in sorted(folder.rglob("*")):
        is_file = path.is_file() and path.name.lower().endswith(_KINDS)
        if is_file and path.stat().st_size <= _LARGEST and runs_in(path):
            found += runs_of(path)
    return found
