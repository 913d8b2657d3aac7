"""The page of one run: the verdict first, then latencies, stages, load over time, clients and slow requests."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from shlex import quote
from typing import TYPE_CHECKING, Any

from hermes_flow.metrics.number_text import UNKNOWN, counted, digits, duration, percent
from hermes_flow.metrics.objectives import bound_label
from hermes_flow.metrics.run_files import RunFiles
from hermes_flow.report.charts.latency import Bound, Curve, distribution
from hermes_flow.report.charts.load import client_rows, lines_over_time, share_bars, utilization
from hermes_flow.report.charts.stages import request_rows, waterfall
from hermes_flow.report.error_text import bar_text, error_text
from hermes_flow.report.pages import template as html
from hermes_flow.report.pages.capacity import capacity_part
from hermes_flow.report.pages.fleet import fleet_part
from hermes_flow.report.pages.operations import operations_part
from hermes_flow.report.pages.run_figures import bounds_table, cause_rows, headline, key_figures, why_texts
from hermes_flow.report.pages.template import Cell

if TYPE_CHECKING:
    import polars as pl

LATENCIES = {"ttft": "TTFT", "tpot": "TPOT", "itl": "ITL", "e2e": "E2E"}
_STATISTICS = ("mean", "p50", "p90", "p99")
_SLOWEST = 20
_CAUSES = 10
_CLIENTS = 48  # time-lines in the page
_TRACE_BYTES = 8_000_000  # a longer trace stays a file beside the page
_NOTHING = "The folder has no tables of requests and stages, so the charts of this part are missing."


def run_page(run: RunFiles) -> str:
    """Return the page of a run as one HTML file. What the run did not write is left out and named."""
    program = run.program.strip().splitlines()
    title = f"Run {run.name}" if run.folder is not None else run.name
    return html.page(title, program[0] if program else "", _parts(run))


def _parts(run: RunFiles) -> Iterator[str]:
    summary = run.summary
    text, style = headline(summary)
    yield html.verdict(text, style, why_texts(summary))
    if summary["slo"]["bounds"]:
        yield bounds_table(summary)
    yield from _causes(summary)
    yield html.tiles(key_figures(summary))
    for warning in summary["warnings"]:
        yield html.paragraph(f"Warning: {warning}", "caution")
    if run.capacity is not None and "capacity" in summary:
        yield from capacity_part(run.capacity, summary["capacity"])
    yield from operations_part(summary)
    yield from _latencies(run)
    yield from _stages(run)
    yield from _over_time(run)
    yield from fleet_part(run)
    yield from _clients(run)
    yield from _slowest(run)
    yield from _trace(run)
    yield from _settings(run)


def _causes(summary: dict[str, Any]) -> Iterator[str]:
    """Yield the chart of what the time of the late requests went into, if a bound is missed."""
    why = summary["why"]
    rows = cause_rows(why["causes"] or {})
    if rows:
        bars = share_bars([(f"{what}: {where}", share) for what, where, share in rows[:_CAUSES]])
        title = f"Why {bound_label(why['bound'])} is missed"
        late = counted(why["requests"], "late request")
        caption = f"What the time of the {late} that counts for the bound went into."
        yield html.chart(title, caption, bars)


def _latencies(run: RunFiles) -> Iterator[str]:
    yield html.heading("Latencies", "latencies")
    rows = []
    for metric, title in LATENCIES.items():
        values = run.summary[f"{metric}_s"]
        if values["mean"] is not None:
            rows.append(
                [title, *(duration(values[name]) for name in _STATISTICS), bar_text(run.summary, metric)]
            )
    yield html.table(["", *_STATISTICS, "mean, with error bar"], rows)
    error = error_text(run.summary)
    if error:
        yield html.paragraph(f"Error bar: {error}.", "soft")
    if run.requests is None:
        yield html.paragraph(_NOTHING, "soft")
        return
    yield html.paragraph(
        "Each curve shows which share of the requests is at least as fast as the value below it. A triangle is a "
        "bound of the SLO: a curve that passes above and to the left of it meets the bound.",
        "soft",
    )
    charts = []
    for metric in ("ttft", "tpot", "e2e"):
        spec = distribution(_curves(run, metric), _bounds(run.summary, metric))
        if spec is not None:
            charts.append(html.chart(LATENCIES[metric], "", spec))
    yield html.side_by_side(charts)


def _curves(run: RunFiles, metric: str) -> list[Curve]:
    """Return a curve for all requests, or one per traffic class, or per pipeline if several run at once."""
    assert run.requests is not None
    by = "class" if "class" in run.requests.columns else "pipeline"
    groups = run.requests.partition_by(by, as_dict=True, maintain_order=True)
    if len(groups) == 1:
        return [Curve("all requests", run.requests[f"{metric}_s"].drop_nulls().to_numpy())]
    return [Curve(str(name), part[f"{metric}_s"].drop_nulls().to_numpy()) for (name,), part in groups.items()]


def _bounds(summary: dict[str, Any], metric: str) -> list[Bound]:
    found = []
    for name, bound in summary["slo"]["bounds"].items():
        parts = name.split("_")
        if parts[0] == metric and len(parts) == 3 and parts[1].startswith("p"):
            found.append(Bound(float(parts[1][1:]), bound["limit_s"], bound["met"]))
    return found


def _stages(run: RunFiles) -> Iterator[str]:
    yield html.heading("Where the time goes", "stages")
    path = run.summary["critical_path"]
    rows = [
        [
            stage,
            duration(figures["mean_s"]),
            duration(figures["queue_mean_s"]),
            duration(figures["service_mean_s"]),
            duration(figures["p99_s"]),
            percent(path["mean"]["shares"].get(stage, 0.0)) if path["mean"] else UNKNOWN,
            percent(path["p99"]["shares"].get(stage, 0.0)) if path["p99"] else UNKNOWN,
        ]
        for stage, figures in run.summary["stages"].items()
    ]
    heads = [
        "stage",
        "mean",
        "queue, mean",
        "service, mean",
        "p99",
        "share of E2E",
        "share in the slowest 1 %",
    ]
    yield html.table(heads, rows)
    if run.stages is None or run.requests is None:
        yield html.paragraph(_NOTHING, "soft")
        return
    charts = []
    done = run.requests.filter(run.requests["status"] == "completed")
    if done.is_empty():
        return
    everyone = waterfall(run.stages, done, run.stage_names)
    slow = done.filter(done["e2e_s"] >= done["e2e_s"].quantile(0.99, "higher"))
    slowest = waterfall(run.stages, slow, run.stage_names)
    caption = "When a stage is ready, waits and is served, as means over the requests that take it."
    for title, spec in (("The mean request", everyone), ("The slowest 1 % of requests", slowest)):
        if spec is not None:
            charts.append(html.chart(title, caption, spec))
    yield html.side_by_side(charts)


def _over_time(run: RunFiles) -> Iterator[str]:
    if run.requests is None or run.stages is None:
        return
    import numpy as np

    from hermes_flow.metrics.levels import bins

    done = run.requests.filter(run.requests["status"] == "completed")
    if done.is_empty():
        return
    yield html.heading("Over time", "time")
    end_s = float(done["finish_s"].max())  # type: ignore[arg-type]
    parts = bins(end_s)
    arrivals, finishes = done["arrival_s"].to_numpy(), done["finish_s"].to_numpy()
    rates = bins(end_s, 60)
    charts = [
        html.chart(
            "Requests in the system",
            "Requests that have arrived and are not done. A line that keeps rising shows a load above the capacity.",
            lines_over_time(parts.middles_s, {"in flight": parts.mean_level(arrivals, finishes)}, "requests"),
        ),
        html.chart(
            "Arrivals and completions",
            "Requests per second, in 60 equal parts of the run.",
            lines_over_time(
                rates.middles_s,
                {"arrive": rates.rate(arrivals), "complete": rates.rate(finishes)},
                "requests/s",
            ),
        ),
    ]
    known = run.stages.filter(run.stages["finish_s"].is_not_null())
    waiting, served = {}, {}
    for stage in run.stage_names:
        own = known.filter(known["stage"] == stage)
        ready, start = own["ready_s"].to_numpy(), own["start_s"].to_numpy()
        level = parts.mean_level(ready + own["transfer_s"].to_numpy(), start)
        if np.max(level, initial=0.0) >= 0.05:
            waiting[stage] = level
        served[stage] = parts.mean_level(start, own["finish_s"].to_numpy())
    if waiting:
        charts.append(
            html.chart(
                "Queues",
                "Tasks that wait, by stage.",
                lines_over_time(parts.middles_s, waiting, "tasks", names=run.stage_names),
            )
        )
    served = {stage: level for stage, level in served.items() if np.max(level, initial=0.0) >= 0.05}
    if served:
        charts.append(
            html.chart(
                "Batch: tasks in service",
                "Tasks that clients work on at the same time, by stage and over all clients of its pool.",
                lines_over_time(parts.middles_s, served, "tasks", names=run.stage_names),
            )
        )
    charts += _kv_chart(run, parts.middles_s)
    yield html.side_by_side(charts)


def _kv_chart(run: RunFiles, times_s: Any) -> list[str]:
    """Return the chart of KV in use by the fullest client of each pool, scaled to the measured peaks."""
    import numpy as np

    from hermes_flow.metrics.levels import kv_levels

    assert run.stages is not None
    if run.clients is None:
        return []
    levels = kv_levels(run.stages, times_s)
    pools: dict[str, Any] = {}
    for row in run.clients.iter_rows(named=True):
        level, peak = levels.get(row["client"]), row["kv_peak_fraction"]
        if level is None or peak is None or not level.max(initial=0.0):
            continue
        share = level / level.max() * peak
        pools[row["pool"]] = np.maximum(pools.get(row["pool"], 0.0), share)
    if not pools:
        return []
    caption = (
        "The share of KV memory in use on the fullest client of each pool. Estimated from the prompts and answers in "
        "service, and scaled so that each client reaches its recorded peak."
    )
    spec = lines_over_time(times_s, pools, "KV in use", percent=True, names=list(run.summary["pools"]))
    return [html.chart("KV memory", caption, spec)]


def _clients(run: RunFiles) -> Iterator[str]:
    yield html.heading("Clients", "clients")
    rows = [
        [
            name,
            f"{figures['clients']:,}",
            percent(figures["busy_fraction"]),
            percent(figures["busiest_client_fraction"]),
            duration(figures["queue_mean_s"]),
            digits(figures["mean_batch"]),
            percent(figures["kv_peak_fraction"]),
            *(percent(figures["saturation"][name]) for name in ("seats", "kv_memory", "work")),
        ]
        for name, figures in run.summary["pools"].items()
    ]
    heads = ["pool", "clients", "busy", "busiest", "mean wait", "mean batch", "KV peak"]
    yield html.table([*heads, "seats taken", "KV held", "work"], rows)
    yield html.paragraph(
        "Work is what arrives, as a share of what the clients could do in full batches. Above 100 % the backlog "
        "grows.",
        "soft",
    )
    if run.clients is None or run.stages is None:
        return
    charts = [
        html.chart("Utilization", "The share of the run in which a client works.", utilization(run.clients))
    ]
    lines, left_out = _time_lines(run)
    if lines is not None:
        caption = "The stronger the colour, the more tasks a client serves at the time."
        if left_out:
            caption += f" {counted(left_out, 'client')} with fewer tasks are not shown."
        charts.append(html.chart("Time-lines of clients", caption, lines))
    yield html.side_by_side(charts)
    if run.links is not None and not run.links.is_empty():
        yield html.folded(f"{counted(len(run.links), 'link')} of the network", _frame_table(run.links))


def _time_lines(run: RunFiles) -> tuple[dict[str, Any] | None, int]:
    """Return the chart of clients over time, and how many clients it leaves out."""
    from hermes_flow.metrics.levels import bins

    assert run.stages is not None
    assert run.clients is not None
    known = run.stages.filter(run.stages["finish_s"].is_not_null() & run.stages["client"].is_not_null())
    if known.is_empty():
        return None, 0
    parts = bins(float(known["finish_s"].max()), 120)  # type: ignore[arg-type]
    by_client = known.partition_by("client", as_dict=True)
    present = [name for name in run.clients["client"] if (name,) in by_client]
    chosen = set(sorted(present, key=lambda name: -len(by_client[(name,)]))[:_CLIENTS])
    levels = {}
    for name in present:
        if name in chosen:
            own = by_client[(name,)]
            levels[name] = parts.mean_level(own["start_s"].to_numpy(), own["finish_s"].to_numpy())
    return client_rows(parts, levels), len(present) - len(levels)


def _slowest(run: RunFiles) -> Iterator[str]:
    if run.requests is None or run.stages is None:
        return
    done = run.requests.filter(run.requests["e2e_s"].is_not_null())
    if done.is_empty():
        return
    yield html.heading("The slowest requests", "slowest")
    slow = done.sort("e2e_s", descending=True, maintain_order=True).head(_SLOWEST)
    spec = request_rows(
        run.stages.filter(run.stages["request"].is_in(slow["request"].implode())), slow, run.stage_names
    )
    if spec is not None:
        caption = f"The {counted(len(slow), 'request')} with the largest E2E, the slowest first."
        yield html.chart("From arrival to finish", caption, spec)
    rows = [
        [
            str(row["request"]),
            f"{row['arrival_s']:,.2f} s",
            digits(row["input_tokens"]),
            digits(row["output_tokens"]),
            duration(row["ttft_s"]),
            duration(row["tpot_s"]),
            duration(row["e2e_s"]),
            digits(row["preemptions"]),
            Cell("yes", "good")
            if row["slo_met"]
            else Cell("no", "bad")
            if row["slo_met"] is False
            else UNKNOWN,
        ]
        for row in slow.iter_rows(named=True)
    ]
    heads = ["request", "arrival", "prompt", "answer", "TTFT", "TPOT", "E2E", "preemptions", "within SLO"]
    yield html.folded("As a table", html.table(heads, rows))


def _trace(run: RunFiles) -> Iterator[str]:
    yield html.heading("Every step and task", "trace")
    if run.trace is None:
        yield html.paragraph(
            "The run has no trace. With output.trace=true it writes trace.json.gz, and this page then has a button "
            "that opens it in Perfetto.",
            "soft",
        )
        return
    if run.folder is not None and (run.folder / "trace.json.gz").is_file():
        yield f"<p>{html.link('trace.json.gz', 'trace.json.gz')} lies beside this page.</p>"
    if len(run.trace) > _TRACE_BYTES:
        yield html.paragraph(
            "It is too large to be part of the page: open https://ui.perfetto.dev and load the file."
        )
        return
    yield '<p><button class="perfetto">Open the trace in Perfetto</button></p>'
    yield html.paragraph(
        "The button opens ui.perfetto.dev in a new window and hands it the trace from this page. Perfetto works in "
        "the browser; nothing is uploaded.",
        "soft screen",
    )
    yield f'<script type="text/plain" id="trace-file">{b64encode(run.trace).decode()}</script>'


def _settings(run: RunFiles) -> Iterator[str]:
    yield html.heading("Settings", "settings")
    if run.overrides:
        yield html.paragraph("Started with:")
        yield html.code("hermes-flow " + " \\\n  ".join(map(quote, run.overrides)))
    if run.program:
        yield html.folded("The compiled program", html.code(run.program))


def _frame_table(frame: pl.DataFrame) -> str:
    """Return a table of a frame as it is, numbers in three digits."""
    rows = [
        [digits(value) if isinstance(value, float) else "–" if value is None else str(value) for value in row]
        for row in frame.iter_rows()
    ]
    return html.table(frame.columns, rows)
