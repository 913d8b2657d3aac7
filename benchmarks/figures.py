"""Draws the README's picture from a sweep: ``python -m benchmarks.figures [SWEEP_FOLDER]``.

Without a folder the sweep runs first, as the README has it. The picture of a folder's own sweep is written into that
folder, and the README keeps its picture. The picture is an SVG that is readable on light and
dark pages.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.processes import ROOT, run_module
from hermes_flow.report.charts.picture import svg
from hermes_flow.report.charts.theme import SOFT, colour_scale, specification

if TYPE_CHECKING:
    import altair as alt
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
        folder = Path(sys.argv[1])
        _draw(folder, folder / PICTURE.name)
        return
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        run_module("hermes_flow", "-m", *SWEEP, f"hydra.sweep.dir={folder}")
        print(f"{len(CUTS) * 20} simulations in {time.perf_counter() - started:.0f} s")
        _draw(Path(folder), PICTURE)


def _draw(folder: Path, path: Path) -> None:
    import altair as alt
    import polars as pl

    sweep = pl.read_parquet(folder / "sweep.parquet").sort("workload.rate_per_s")
    cuts = set(sweep["cluster.pools.llm"].to_list()) if "cluster.pools.llm" in sweep.columns else set()
    if not set(CUTS) <= cuts:
        sys.exit(
            f"{folder}: is no sweep of this picture; expected one over cluster.pools.llm as CUTS in {__file__}"
        )
    sweep = sweep.with_columns(met=pl.col("slo.met"))
    names = {}
    for override, name in CUTS.items():
        within = sweep.filter((pl.col("cluster.pools.llm") == override) & pl.col("met"))
        names[override] = f"{name}: SLO met up to {max(within['workload.rate_per_s'].to_list())}/s"
    panels = alt.hconcat(*(_panel(sweep, metric, names) for metric in METRICS), spacing=50)
    title = alt.TitleParams(
        "Eight H100s, one model: how to cut them?",
        subtitle="Llama-3.1-70B, conversations as in the Azure trace. Filled points meet the SLO, open ones miss it.",
        fontSize=19,
        subtitleColor=SOFT,
        subtitleFontSize=13,
        offset=14,
    )
    spec = specification(panels.properties(title=title))
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "Latency of eight H100s against the request rate, as one, two or four clients"
    path.write_text(svg(spec, text), encoding="utf-8")
    print(f"Written to {path}")


def _panel(sweep: pl.DataFrame, metric: Metric, names: dict[str, str]) -> alt.LayerChart:
    import altair as alt

    rows = [
        {"x": x, "y": y, "cut": names[cut], "met": met}
        for x, y, cut, met in sweep.select(
            "workload.rate_per_s", metric.column, "cluster.pools.llm", "met"
        ).rows()
        if metric.low <= y <= metric.high
    ]
    (bound,) = sweep[metric.bound].unique()
    labels = " : ".join(f"datum.value == {value} ? '{text}'" for value, text in metric.ticks.items())
    axis = alt.Axis(values=list(metric.ticks), labelExpr=f"{labels} : ''")
    scale = alt.Scale(type="log", domain=[metric.low, metric.high], nice=False)
    y = alt.Y("y:Q", title=None, scale=scale, axis=axis)
    x = alt.X("x:Q", title="requests per second", scale=alt.Scale(domain=[0, 20.4], nice=False))
    legend = alt.Legend(orient="bottom", columns=1) if metric is METRICS[0] else None
    colour = alt.Color("cut:N", scale=colour_scale(list(names.values())), legend=legend)
    base = alt.Chart(alt.InlineData(values=rows)).encode(x=x, y=y, color=colour)
    hollow = alt.condition("datum.met", alt.value(1), alt.value(0))
    points = base.mark_point(size=40, strokeWidth=1.6, opacity=1)
    line = alt.Chart(alt.InlineData(values=[{"y": bound, "x": 0.4, "text": "SLO"}]))
    layers = [
        line.mark_rule(strokeDash=[6, 4], color=SOFT).encode(y=y),
        line.mark_text(align="left", dy=-8, fontWeight=600, color=SOFT).encode(x=x, y=y, text="text:N"),
        base.mark_line(strokeWidth=2.2),
        points.encode(
            fill=alt.Fill("cut:N", scale=colour_scale(list(names.values())), legend=None), fillOpacity=hollow
        ),
    ]
    return alt.layer(*layers).properties(width=380, height=250, title=metric.title)


if __name__ == "__main__":
    main()
