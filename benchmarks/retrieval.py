"""Measures vector searches of faiss here, fits the constants of this host, and says how far predictions are off.

``python -m benchmarks.retrieval [--folder FOLDER] [--fit-only]``. Writes retrieval_measurements.csv, and
retrieval_host.yaml with the ``retrieval`` block of a hardware entry; prints a table of errors. A few minutes.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.processes import ROOT
from benchmarks.retrieval_cases import FIT, Case, cases
from benchmarks.retrieval_fit import Caches, Errors, errors, fit
from benchmarks.retrieval_timing import measured
from hermes_flow.config.retrieval import RetrievalEfficiency

TLB_MB = 3072 * 4096 / 1e6  # entries of the second level of Zen 4, pages of 4 KB
CACHE_FOLDER = Path("/sys/devices/system/cpu/cpu0/cache")
KIND_NAMES = ("flat", "ivf_flat", "ivf_pq", "hnsw", "rerank")


def main() -> None:
    """Measure, fit, write, print."""
    options = _options()
    options.folder.mkdir(parents=True, exist_ok=True)
    table = options.folder / "retrieval_measurements.csv"
    if not options.fit_only:
        _measure(table, read(table)[1] if options.again and table.is_file() else [])
    origin, found = read(table)
    caches = Caches(options.l2_mb, options.tlb_mb, options.l3_mb)
    fitted = fit([case for case in found if case.split == FIT], caches, f"fit to {origin}")
    host = options.folder / "retrieval_host.yaml"
    host.write_text(_yaml(fitted), encoding="utf-8")
    print(error_table(errors(found, fitted)))
    print(f"\n{table}\n{host}", file=sys.stderr)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.retrieval", description=__doc__)
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "outputs" / "bench", help="where the files land"
    )
    parser.add_argument(
        "--again", action="store_true", help="keep the lesser of old and new times of a search"
    )
    parser.add_argument("--fit-only", action="store_true", help="fit to the measurements in the folder")
    parser.add_argument("--l2-mb", type=float, default=_cache_mb(2), help="second-level cache of a core")
    parser.add_argument("--tlb-mb", type=float, default=TLB_MB, help="memory that a core's TLB covers")
    parser.add_argument("--l3-mb", type=float, default=_cache_mb(3), help="last-level cache")
    options = parser.parse_args()
    if options.l2_mb is None or options.l3_mb is None:
        parser.error("the sizes of the caches are not known here; give --l2-mb and --l3-mb")
    return options


def _cache_mb(level: int) -> float | None:
    """Return the size of the first core's cache of a level, as Linux reports it."""
    for folder in sorted(CACHE_FOLDER.glob("index*")):
        if (folder / "level").read_text().strip() == str(level):
            return int((folder / "size").read_text().strip().removesuffix("K")) * 1024 / 1e6
    return None


def _measure(table: Path, before: Sequence[Case]) -> None:
    """Write the measurements: the lesser of the times before and now."""
    where = f"{_processor()}, {os.cpu_count()} cores"
    origin = f"faiss {version('faiss-cpu')} on {where}, synthetic vectors, {datetime.now(UTC):%Y-%m-%d}"
    best = {_search(case): case for case in before}
    for case in measured(cases()):
        known = best.get(_search(case))
        if known is None or case.seconds < known.seconds:
            best[_search(case)] = case
    with table.open("w", encoding="utf-8", newline="") as file:
        file.write(f"# {origin}\n")
        writer = csv.DictWriter(file, [field.name for field in fields(Case)], lineterminator="\n")
        writer.writeheader()
        for case in best.values():
            figures = {"scored": f"{case.scored:.6g}", "seconds": f"{case.seconds:.4g}"}
            writer.writerow({**asdict(case), **figures})


def _search(case: Case) -> Case:
    """Return what was searched, without what was measured."""
    return replace(case, scored=0.0, seconds=0.0)


def read(table: Path) -> tuple[str, list[Case]]:
    """Return where measurements come from, and the measurements."""
    with table.open(encoding="utf-8", newline="") as file:
        origin = file.readline().removeprefix("#").strip()
        rows = [{name: _figure(name, cell) for name, cell in row.items()} for row in csv.DictReader(file)]
    return origin, [Case(**row) for row in rows]


def _figure(name: str, cell: str) -> Any:
    if name in ("split", "index"):
        return cell
    return float(cell) if name in ("scored", "seconds") else int(cell)


def error_table(found: Sequence[Errors]) -> str:
    """Return mean and worst errors per kind of index, as a Markdown table."""
    by = {(entry.index, entry.split): entry for entry in found}
    lines = [
        "| index | fitted: searches | mean | within 20 % | worst | held out: searches | mean | within 20 % | worst |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for kind in KIND_NAMES:
        cells = [_cells(by.get((kind, split))) for split in (FIT, "held_out")]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cells(entry: Errors | None) -> str:
    if entry is None:
        return "0 | – | – | –"
    return f"{entry.searches} | {100 * entry.mean:.1f} % | {100 * entry.within:.0f} % | {100 * entry.worst:.0f} %"


def _yaml(fitted: RetrievalEfficiency) -> str:
    """Return the block that a file of conf/hardware/ takes."""
    from omegaconf import OmegaConf

    text: str = OmegaConf.to_yaml(OmegaConf.create({"retrieval": asdict(fitted)}))
    return text


def _processor() -> str:
    """Return the processor's name, with family and model where Linux gives them."""
    known: dict[str, str] = {}
    if Path("/proc/cpuinfo").is_file():
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            known.setdefault(name.strip(), value.strip())
    if "model name" not in known:
        return platform.processor() or platform.machine()
    return f"{known['model name']} (family {known['cpu family']}, model {known['model']})"


if __name__ == "__main__":
    main()
