"""Draws the README's picture from a sweep: ``python -m benchmarks.figures [SWEEP_FOLDER]``.

Without a folder the sweep runs first, as the README has it. The picture is an SVG that is readable on light and
dark pages.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.plot import Line, Panel, Point, picture
from benchmarks.processes import ROOT, run_module

if TYPE_CHECKING:
    import polars as pl

PICTURE = ROOT / "docs" / "pictures" / "eight_gpus.svg"
CUTS = {
    "{count:1,tensor_parallel:8}": "1 × TP8",
    "{count:2,tensor_parallel:4}": "2 × TP4",
    "{count:4,tensor_parallel:2}": "4 × TP2",
}
SWEEP = (
    "model=llama3_70b",
    f"cluster.pools.llm={','.join(CUTS)}",
    "workload.rate_per_s=range(1,21)",
    "workload.requests=8000",
)


@dataclass(frozen=True, slots=True)
class Metric:
    """A column of sweep.parquet and the axis it is drawn on; ``bound`` names its SLO bound."""

    title: str
    column: str
    bound: str
    low: float
    high: float
    ticks: dict[float, str]


METRICS = (
    Metric(
        "Time to first token, P99", "ttft_s.p99", "slo.bounds.ttft_p99_s.limit_s", 0.1, 200.0,
        {0.1: "100 ms", 1.0: "1 s", 10.0: "10 s", 100.0: "100 s"},
    ),
    Metric(
        "Time per output token, P90", "tpot_s.p90", "slo.bounds.tpot_p90_s.limit_s", 0.008, 0.2,
        {0.01: "10 ms", 0.02: "20 ms", 0.05: "50 ms", 0.1: "100 ms", 0.2: "200 ms"},
    ),
)  # fmt: skip


def main() -> None:
    """Draw the picture of the sweep in the folder given, or of one that runs now."""
    if len(sys.argv) > 1:
        _draw(Path(sys.argv[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        run_module("hermes_flow", "-m", *SWEEP, f"hydra.sweep.dir={folder}")
        print(f"{len(CUTS) * 20} simulations in {time.perf_counter() - started:.0f} s")
        _draw(Path(folder))


def _draw(folder: Path) -> None:
    import polars as pl

    sweep = pl.read_parquet(folder / "sweep.parquet").sort("workload.rate_per_s")
    met = [column for column in sweep.columns if column.startswith("slo.bounds.") and column.endswith(".met")]
    sweep = sweep.with_columns(met=pl.all_horizontal(met))
    panels = [_panel(sweep, metric) for metric in METRICS]
    names = {}
    for override, name in CUTS.items():
        within = sweep.filter((pl.col("cluster.pools.llm") == override) & pl.col("met"))
        names[name] = f"{name}: SLO met up to {max(within['workload.rate_per_s'].to_list())}/s"
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    PICTURE.write_text(
        picture(
            "Eight H100s, one model: how to cut them?",
            "Llama-3.1-70B, conversations as in the Azure trace, by requests per second. "
            "● meets the SLO, ○ misses it.",
            panels,
            names,
        ),
        encoding="utf-8",
    )
    print(f"Written to {PICTURE.relative_to(ROOT)}")


def _panel(sweep: pl.DataFrame, metric: Metric) -> Panel:
    lines = []
    for override, name in CUTS.items():
        own = sweep.filter(sweep["cluster.pools.llm"] == override)
        rows = own.select("workload.rate_per_s", metric.column, "met").rows()
        lines.append(Line(name, [Point(*row) for row in rows]))
    (bound,) = sweep[metric.bound].unique()
    return Panel(metric.title, lines, (0.0, 20.0), (metric.low, metric.high), metric.ticks, bound)


if __name__ == "__main__":
    main()
