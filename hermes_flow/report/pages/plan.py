"""The page of a plan: what to buy, what each design costs, what it gives, and why the others cannot meet the SLO."""

from __future__ import annotations

from collections.abc import Iterator
from shlex import quote, split
from typing import TYPE_CHECKING, Any

from hermes_flow.metrics.figures import Figure, figure
from hermes_flow.metrics.number_text import UNKNOWN, counted, digits, dollars, duration, percent, spare
from hermes_flow.planning.plan_table import command_of
from hermes_flow.report.charts.designs import ranked_bars, trade_off
from hermes_flow.report.pages import template as html
from hermes_flow.report.pages.run_figures import bounds_table, key_figures
from hermes_flow.report.pages.template import Cell

if TYPE_CHECKING:
    import polars as pl

_ROWS = 200
_BARS = 25
_PRICE = Figure("usd_per_hour", "$ per hour", "usd", "low")
_TTFT = Figure("ttft_p99_s", "TTFT p99", "s", "low")
_TPOT = Figure("tpot_p90_s", "TPOT p90", "s", "low")


def plan_page(designs: pl.DataFrame, summary: dict[str, Any], name: str) -> str:
    """Return the page of a plan from ``plan.parquet`` and the ``summary.json`` beside it, as one HTML file."""
    ranked = [row for row in designs.iter_rows(named=True) if row["rank"] is not None]
    others = [row for row in designs.iter_rows(named=True) if row["rank"] is None]
    subtitle = (
        f"{counted(len(ranked), 'design')} meet the SLO; {counted(len(others), 'kind')} of designs cannot"
    )
    return html.page(f"Plan {name}", subtitle, _parts(ranked, others, summary))


def design_name(row: dict[str, Any]) -> str:
    """Return a ranked design as a buyer says it: "8 × h100_sxm, 2 × TP4"."""
    parallel = _parallel(row)
    if row["layout"] == "disaggregated":
        shape = f"{row['prefill_clients']} prefill + {row['decode_clients']} decode × {parallel}"
    else:
        shape = f"{row['clients']} × {parallel}"
    machines = f"{row['accelerators']} × {row['hardware']}"
    if row.get("decode_hardware"):
        each = row["tensor_parallel"] * row["pipeline_parallel"] * (row.get("data_parallel") or 1)
        first, second = row["prefill_clients"] * each, row["decode_clients"] * each
        machines = f"{first} × {row['hardware']} + {second} × {row['decode_hardware']}"
    return f"{machines}, {shape}"


def _parts(
    ranked: list[dict[str, Any]], others: list[dict[str, Any]], summary: dict[str, Any]
) -> Iterator[str]:
    yield _verdict(ranked)
    if ranked:
        yield html.paragraph("Run the best design:")
        command = command_of(ranked[0]["overrides"], summary.get("plan", {}).get("given", []))
        yield html.code(" \\\n  ".join(("hermes-flow", *map(quote, split(command)[1:]))))
        yield html.heading("The best design", "best")
        yield bounds_table(summary)
        yield html.tiles(key_figures(summary))
        yield from _charts(ranked)
        yield html.heading("Ranked designs", "designs")
        yield _ranked_table(ranked)
    if others:
        yield html.heading("Ruled out", "others")
        yield html.paragraph("These kinds of designs do not meet the SLO in any size.", "soft")
        rows = [
            [
                _hardware(row),
                row["layout"],
                _parallel(row),
                row["batching"],
                Cell(row["problem"] or UNKNOWN, "prose"),
            ]
            for row in others[:_ROWS]
        ]
        yield html.table(["hardware", "layout", "parallel", "batching", "reason"], rows, left=5)
    for note in summary.get("plan", {}).get("notes", []):
        yield html.paragraph(f"Note: {note}", "caution")


def _hardware(row: dict[str, Any]) -> str:
    other = row.get("decode_hardware")
    return f"{row['hardware']} + {other}" if other else str(row["hardware"])


def _verdict(ranked: list[dict[str, Any]]) -> str:
    if not ranked:
        return html.verdict("No design that was tried meets the SLO at this load.", "missed", [])
    best = ranked[0]
    price = best["usd_per_hour"]
    texts = ["No price is known for it." if price is None else f"It costs {dollars(price)} per hour."]
    if best["headroom"] is not None:
        texts[0] += (
            f" Its load can grow by {percent(best['headroom'])} before a bound fails."
            if best["headroom"] > 0
            else " No larger load that was tried meets the SLO."
        )
    second = next((row for row in ranked[1:] if row["usd_per_hour"] is not None), None)
    if price and second is not None:
        more = second["usd_per_hour"] / price - 1
        compared = "costs the same" if more <= 0.0005 else f"costs {percent(more)} more"
        texts.append(f"The next design, {design_name(second)}, {compared}.")
    if best.get("accelerators_low") is not None:
        texts.append(f"With the error bar of its step times it takes {_range(best)}.")
    alike = [design_name(row) for row in ranked[1:] if row.get("like_the_best")]
    if alike:
        texts.append(f"Not distinguishable from it, as their error bars overlap: {'; '.join(alike)}.")
    if best["smaller_misses"]:
        texts.append(f"One size smaller misses the SLO ({best['smaller_misses']}).")
    return html.verdict(f"Buy {design_name(best)}.", "met", texts)


def _charts(ranked: list[dict[str, Any]]) -> Iterator[str]:
    priced = [row for row in ranked if row["usd_per_hour"] is not None]
    rows = [
        {**row, "name": f"{row['rank']}: {design_name(row)}", "label": str(row["rank"]), "met": True}
        for row in priced
    ]
    charts = []
    if rows:
        first = rows[:_BARS]
        marked = [row["rank"] == ranked[0]["rank"] for row in first]
        bars = ranked_bars(
            [row["name"] for row in first], [row["usd_per_hour"] for row in first], _PRICE, marked
        )
        caption = "The price per hour of the LLM clients of every design that meets the SLO."
        if len(rows) > _BARS:
            caption += f" {counted(len(rows) - _BARS, 'more expensive design')} are in the table."
        charts.append(html.chart("What it costs", caption, bars))
    for latency in (_TTFT, _TPOT):
        spec, front = trade_off(rows, _PRICE, latency)
        if spec is not None:
            caption = (
                f"The numbers are ranks. The dashed line is the Pareto front: the {counted(len(front), 'design')} "
                "that no other design beats in both figures."
            )
            charts.append(html.chart(f"{latency.title} against the price", caption, spec))
    if charts:
        yield html.heading("Price and latency", "price")
        yield charts[0]
        yield html.side_by_side(charts[1:])


def _ranked_table(ranked: list[dict[str, Any]]) -> str:
    heads: list[Cell | str] = [
        "rank",
        "design",
        Cell("layout", "left"),
        "$ per hour",
        "with error bar",
        "like the best",
        "$ per million output tokens",
        "TTFT p99",
        "TPOT p90",
        "E2E p99",
    ]
    heads += ["within SLO", "more load", "busy", "KV peak", "J per token"]
    tokens = figure("cost.usd_per_million_output_tokens")
    rows: list[list[Cell | str]] = [
        [
            str(row["rank"]),
            design_name(row),
            Cell(row["layout"], "left"),
            _PRICE.text(row["usd_per_hour"]),
            _range(row),
            {True: "not distinguishable", False: "no", None: UNKNOWN}[row.get("like_the_best")],
            tokens.text(row["usd_per_million_output_tokens"]),
            duration(row["ttft_p99_s"]),
            duration(row["tpot_p90_s"]),
            duration(row["e2e_p99_s"]),
            percent(row["attainment"]),
            UNKNOWN if row["headroom"] is None else spare(row["headroom"]),
            percent(row["busy_fraction"]),
            percent(row["kv_peak_fraction"]),
            digits(row["j_per_output_token"]),
        ]
        for row in ranked[:_ROWS]
    ]
    return html.table(heads, rows, left=2)


def _range(row: dict[str, Any]) -> str:
    """Return the prices at the ends of the error bar, or the accelerators of a design without a price."""
    if row.get("accelerators_low") is None:
        return UNKNOWN
    priced = row["usd_per_hour"] is not None
    ends = [row[f"{'usd_per_hour' if priced else 'accelerators'}_{end}"] for end in ("low", "high")]
    texts = [
        "no size that was tried" if end is None else dollars(end) if priced else str(end) for end in ends
    ]
    text = texts[0] if texts[0] == texts[1] else f"{texts[0]} to {texts[1]}"
    return text if priced else f"{text} accelerators"


def _parallel(row: dict[str, Any]) -> str:
    ranks = (
        ("PP", row["pipeline_parallel"]),
        ("DP", row.get("data_parallel") or 1),
    )  # older plans have no DP
    return f"TP{row['tensor_parallel']}" + "".join(f" × {name}{count}" for name, count in ranks if count > 1)
