"""The first lines of a run's page: the verdict on the SLO, why, each bound with its value, and the key figures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hermes_flow.metrics.number_text import digits, dollars, duration, joules, percent
from hermes_flow.metrics.objectives import ATTAINMENT, bound_label
from hermes_flow.metrics.why.words import CAUSE_WORDS
from hermes_flow.report.pages import template as html
from hermes_flow.report.pages.template import Cell


def headline(summary: dict[str, Any]) -> tuple[str, str]:
    """Return the verdict in a few words, and its style ("met", "missed" or "")."""
    slo = summary["slo"]
    if not slo["bounds"]:
        return "No SLO is set.", ""
    missed = [name for name, bound in slo["bounds"].items() if not bound["met"]]
    if not missed:
        return f"The SLO {slo['name']} is met.", "met"
    names = ", ".join(bound_label(name) for name in missed)
    return f"The SLO {slo['name']} is missed: {names}.", "missed"


def why_texts(summary: dict[str, Any]) -> Iterator[str]:
    """Yield the sentences that explain the verdict: the bottleneck, and why a bound is missed or how much is left."""
    yield summary["limits"]["text"]
    if summary["why"]["text"]:
        yield summary["why"]["text"]


def cause_rows(causes: dict[str, float]) -> list[tuple[str, str, float]]:
    """Return the causes of a missed bound as (what it is, stage and pool, share), the largest first."""
    rows = []
    for key, share in sorted(causes.items(), key=lambda entry: -entry[1]):
        place, _, cause = key.rpartition(".")
        stage, _, pool = place.rpartition(".")
        rows.append((CAUSE_WORDS.get(cause, cause), f"{stage} on pool {pool}", share))
    return rows


def bounds_table(summary: dict[str, Any]) -> str:
    """Return every bound of the SLO with its value, how much of it is used, and whether it is met."""
    rows: list[list[Cell | str]] = []
    for name, bound in summary["slo"]["bounds"].items():
        verdict = Cell("met", "good") if bound["met"] else Cell("missed", "bad")
        if "limit_share" in bound:
            value, limit = percent(bound["value_share"]), f"at least {percent(bound['limit_share'])}"
            of = f"{bound_label(name).removesuffix(ATTAINMENT)}requests"
            rows.append([f"{of} within all limits", value, limit, "", verdict])
            continue
        value_s, limit_s = bound["value_s"], bound["limit_s"]
        used = None if value_s is None or not limit_s else value_s / limit_s
        share = percent(used) if used is None or used < 2 else f"× {digits(used)}"
        rows.append([bound_label(name), duration(value_s), duration(limit_s), share, verdict])
    return html.table(["bound", "value", "limit", "used", ""], rows)


def key_figures(summary: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield the name, the value and a note of the figures that most readers look for."""
    requests, throughput = summary["requests"], summary["throughput"]
    failed = f"{requests['failed']:,} failed" if requests["failed"] else ""
    for key in ("rejected", "timed_out"):
        if requests.get(key):
            failed += f", {requests[key]:,} {key.replace('_', ' ')}"
    yield "requests completed", f"{requests['completed']:,}", failed
    tokens = throughput["output_tokens_per_s"]
    note = "" if tokens is None else f"{digits(tokens)} output tokens/s"
    yield "throughput", f"{digits(throughput['requests_per_s'])} requests/s", note
    slo = summary["slo"]
    if slo["attainment"] is not None:
        note = f"{percent(slo['attainment'])} of requests within the SLO"
        yield "goodput", f"{digits(slo['goodput_requests_per_s'])} requests/s", note
    for metric in ("ttft", "tpot", "e2e"):
        values = summary[f"{metric}_s"]
        if values["p50"] is not None:
            yield f"{metric.upper()} p50", duration(values["p50"]), f"p99 {duration(values['p99'])}"
    cost, energy = summary["cost"], summary["energy"]
    if cost["usd_per_hour"] is not None:
        per_token = cost["usd_per_million_output_tokens"]
        note = "" if per_token is None else f"{dollars(per_token)} per million output tokens"
        yield "cost", f"{dollars(cost['usd_per_hour'])} per hour", note
    if energy["total_j"] is not None:
        per_token = energy["j_per_output_token"]
        notes = [] if per_token is None else [f"{digits(per_token)} J per output token"]
        if energy["unmetered"]:
            notes.append(f"{', '.join(energy['unmetered'])} not counted")
        yield "energy", joules(energy["total_j"]), "; ".join(notes)
