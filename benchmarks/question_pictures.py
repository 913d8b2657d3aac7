"""Draws the pictures of docs/questions from their own commands: python -m benchmarks.question_pictures [NAME …].

Names of pages as arguments draw those only. Prints what the commands print, for the text of the pages.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.question_runs import PAGES, run_page
from hermes_flow.metrics.figures import Figure, figure
from hermes_flow.metrics.run_files import read_run, read_summary
from hermes_flow.metrics.stage_times import stage_times
from hermes_flow.report.charts.designs import ranked_bars
from hermes_flow.report.charts.picture import svg
from hermes_flow.report.charts.probes import probe_points
from hermes_flow.report.charts.stages import request_rows, time_bars
from hermes_flow.report.charts.theme import Spec, colour_scale, specification
from hermes_flow.report.pages.plan import design_name

if TYPE_CHECKING:
    import altair as alt
    import polars as pl

PICTURES = PAGES.parent / "pictures"
_WIDTH = 780


def main() -> None:
    """Run the pages and draw their pictures."""
    for name in sys.argv[1:] or DRAWN:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            said = run_page(PAGES / f"{name}.md", folder)
            spec, width = DRAWN[name](folder / "outputs")
            title = (PAGES / f"{name}.md").read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
            path = PICTURES / f"question_{name}.svg"
            path.write_text(svg(spec, title, width), encoding="utf-8")
            print(*said, f"{path}\n", sep="\n")


def how_many_gpus(outputs: Path) -> tuple[Spec, int | None]:
    found = read_summary(outputs / "load")["capacity"]
    return probe_points(
        _parquet(outputs / "load" / "capacity.parquet"), found["over"], found["value"]
    ), _WIDTH


def which_gpus(outputs: Path) -> tuple[Spec, int | None]:
    designs = _parquet(outputs / "gpus" / "plan.parquet")
    rows = [row for row in designs.iter_rows(named=True) if row["rank"] is not None and row["usd_per_hour"]]
    names = [f"{row['rank']}: {design_name(row)}" for row in rows]
    price = Figure("usd_per_hour", "$ per hour", "usd", "low")
    bars = ranked_bars(
        names, [row["usd_per_hour"] for row in rows], price, [row["rank"] == 1 for row in rows]
    )
    return bars, _WIDTH


def chunked_or_disaggregated(outputs: Path) -> tuple[Spec, int | None]:
    sweep = _parquet(outputs / "strategies" / "sweep.parquet")
    return by_load(sweep, "experiment", "workload.rate_per_s", ("ttft_s.p99", "tpot_s.p90")), None


def where_does_the_embedder_go(outputs: Path) -> tuple[Spec, int | None]:
    sweep = _parquet(outputs / "embedder" / "sweep.parquet")
    rows, runs, stages = [], [], []
    for job in sweep.iter_rows(named=True):
        name = f"{job['model@cluster.pools.embed.model']} on {job['hardware@cluster.pools.embed.hardware']}"
        times = stage_times(read_summary(outputs / "embedder" / str(job["job"])))
        stages = [stage for stage, _ in times]
        rows += [
            (name, *place, seconds)
            for place, seconds in times.items()
            if place[0] not in ("decode", "detokenize")
        ]
        runs.append(name)
    return time_bars(rows, runs, list(dict.fromkeys(stages))), _WIDTH


def is_the_kv_tier_worth_it(outputs: Path) -> tuple[Spec, int | None]:
    import altair as alt
    import polars as pl

    sweep = _parquet(outputs / "kv" / "sweep.parquet")
    hits = "pipeline.stages.recall.hits"
    words = {"{}": "computed again", "{dram:1.0}": "from DRAM", "{nvme:1.0}": "from NVMe"}
    sweep = sweep.with_columns(pl.col(hits).replace_strict(words, default=pl.col(hits)).alias("where"))
    panels = [
        _panel(
            sweep.filter(pl.col("pipeline.stages.recall.context_tokens") == tokens),
            *("where", "workload.rate_per_s", "ttft_s.p50"),
            title=f"contexts of {tokens:,} tokens",
            legend=tokens == 4000,
        )
        for tokens in (4000, 24000)
    ]
    return specification(alt.hconcat(*panels, spacing=40)), None


def my_traffic(outputs: Path) -> tuple[Spec, int | None]:
    run = read_run(outputs / "mine")
    assert run.stages is not None
    assert run.requests is not None
    spec = request_rows(run.stages, run.requests, run.stage_names)
    assert spec is not None
    return spec, _WIDTH


def my_hardware(outputs: Path) -> tuple[Spec, int | None]:
    sweep = _parquet(outputs / "cards" / "sweep.parquet")
    return by_load(sweep, "hardware", "workload.rate_per_s", ("ttft_s.p99", "tpot_s.p90")), None


def can_i_trust_it(outputs: Path) -> tuple[Spec, int | None]:
    import altair as alt

    sweep = _parquet(outputs / "seeds" / "sweep.parquet")
    panels = []
    for key in ("ttft_s.p99", "tpot_s.p90"):
        rows = [{"seed": str(seed), "y": 1000 * y} for seed, y in sweep.select("seed", key).rows()]
        bars = alt.Chart(alt.InlineData(values=rows)).mark_bar(size=22)
        bars = bars.encode(
            x=alt.X("seed:N", title="seed", axis=alt.Axis(labelAngle=0)),
            y=alt.Y("y:Q", title=f"{figure(key).title} (ms)"),
        )
        panels.append(bars.properties(width=330, height=200))
    return specification(alt.hconcat(*panels, spacing=40)), None


def by_load(sweep: pl.DataFrame, group: str, load: str, keys: tuple[str, ...]) -> Spec:
    """Return the chart of figures against the load, a panel per figure and a line per value of ``group``."""
    import altair as alt

    panels = [_panel(sweep, group, load, key, legend=key == keys[0]) for key in keys]
    return specification(alt.hconcat(*panels, spacing=40))


def _panel(
    sweep: pl.DataFrame, group: str, load: str, key: str, *, title: str = "", legend: bool = False
) -> alt.LayerChart:
    import altair as alt

    names = list(dict.fromkeys(sweep[group].to_list()))
    rows = [
        {"line": line, "x": x, "y": y, "met": met}
        for line, x, y, met in sweep.select(group, load, key, "slo.met").rows()
        if y is not None
    ]
    scale = colour_scale(names)
    shown = alt.Legend(orient="bottom", columns=1) if legend else None
    base = alt.Chart(alt.InlineData(values=rows)).encode(
        x=alt.X("x:Q", title="requests/s", axis=alt.Axis(format="~g")),
        y=alt.Y("y:Q", title=f"{figure(key).title} (s)", scale=alt.Scale(type="log")),
        color=alt.Color("line:N", scale=scale, legend=shown),
    )
    hollow = alt.condition("datum.met", alt.value(1), alt.value(0))
    points = base.mark_point(size=45, strokeWidth=1.6, opacity=1)
    points = points.encode(fill=alt.Fill("line:N", scale=scale, legend=None), fillOpacity=hollow)
    return alt.layer(base.mark_line(strokeWidth=2), points).properties(
        width=330, height=230, title=title or figure(key).title
    )


def _parquet(path: Path) -> pl.DataFrame:
    import polars as pl

    return pl.read_parquet(path)


DRAWN: dict[str, Callable[[Path], tuple[Spec, Any]]] = {
    "how_many_gpus": how_many_gpus,
    "which_gpus": which_gpus,
    "chunked_or_disaggregated": chunked_or_disaggregated,
    "where_does_the_embedder_go": where_does_the_embedder_go,
    "is_the_kv_tier_worth_it": is_the_kv_tier_worth_it,
    "my_traffic": my_traffic,
    "my_hardware": my_hardware,
    "can_i_trust_it": can_i_trust_it,
}


if __name__ == "__main__":
    main()
