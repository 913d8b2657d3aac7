"""Draws how much of a trace is found by memory and disk: ``python -m benchmarks.host_gb SWEEP_FOLDER [PICTURE]``.

The folder is that of a sweep of experiment=host_gb. The picture goes to docs/pictures unless another path is given.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.processes import ROOT
from benchmarks.studies.charts import Panel, grid
from hermes_flow.report.charts.picture import svg

PICTURE = ROOT / "docs" / "pictures" / "host_gb.svg"
_TIERS, _HOST = "cluster.pools.llm.offload.tiers", "cluster.pools.llm.offload.host.capacity_gb"
_WORDS = {"[host]": "memory alone", "[host,disk]": "memory, and a drive of 4 TB"}


def main() -> None:
    """Read the sweep and draw it."""
    import polars as pl

    sweep = pl.read_parquet(Path(sys.argv[1]) / "sweep.parquet").sort(_HOST)
    figures = (
        ("Prompt tokens found", "prefix.hit_share", 100.0, "%"),
        ("TTFT, mean", "ttft_s.mean", 1e3, "ms"),
    )
    panels = [
        Panel(
            title,
            [
                {"line": _WORDS[job[_TIERS]], "x": job[_HOST], "y": scale * job[key]}
                for job in sweep.iter_rows(named=True)
            ],
            "GB of memory of one client",
            unit,
        )
        for title, key, scale, unit in figures
    ]
    picture = Path(sys.argv[2]) if len(sys.argv) > 2 else PICTURE
    picture.write_text(svg(grid(panels), "How much memory and disk the traffic deserves"), encoding="utf-8")


if __name__ == "__main__":
    main()
