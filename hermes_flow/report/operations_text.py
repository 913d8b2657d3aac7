"""The console lines of operations: the gateway, work in vain, adapters, traffic classes and tenants."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hermes_flow.metrics.number_text import counted, digits, duration, joules, percent

_SECTIONS = {"classes": "class", "tenants": "tenant", "sites": "site"}


def outcome_words(requests: dict[str, int]) -> str:
    """Return how many requests failed, and which of them were rejected or timed out; empty if none did."""
    if not requests["failed"]:
        return ""
    named = {"rejected": "rejected", "timed_out": "timed out"}
    which = [f"{requests[key]:,} {words}" for key, words in named.items() if requests.get(key)]
    return f"{requests['failed']:,} FAILED" + (f" ({', '.join(which)})" if which else "")


def operations_lines(summary: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the label and the text of each line; none for a run without any of them."""
    gateway, wasted = summary.get("admission"), summary.get("wasted")
    if gateway is not None:
        wait = gateway["wait_s"]
        text = f"{gateway['admitted']:,} let in after {duration(wait['mean'])} on average, "
        text += f"p99 {duration(wait['p99'])}; at most {gateway['most_queued']:,} queued"
        retries = gateway["retries"]
        yield "gateway", text + (f", {retries:,} {'retry' if retries == 1 else 'retries'}" if retries else "")
    again = summary.get("user_retries")
    if again is not None:
        text = f"{counted(again['requests'], 'request')} given up, {again['times']:,} times in all; "
        yield "tried again", f"{text}{again['completed']:,} of them answered in the end"
    if wasted is not None and wasted["tokens"]:
        spent = "" if wasted["energy_j"] is None else f", {joules(wasted['energy_j'])}"
        yield (
            "in vain",
            f"{counted(wasted['tokens'], 'token')} of {counted(wasted['requests'], 'request')}{spent}",
        )
    for name, own in summary.get("adapters", {}).items():
        disk = f", {own['from_disk']:,} of them from disk" if own["from_disk"] else ""
        found = (
            "" if own["found_share"] is None else f"; {percent(own['found_share'])} found theirs on the GPUs"
        )
        text = f"{counted(own['loads'], 'load')} in {duration(own['load_s'])}{disk}{found}; "
        text += f"a wait of {duration(own['wait_mean_s'])} for a slot on average"
        yield f"adapters {name}", text
    for section, word in _SECTIONS.items():
        for name, own in summary.get(section, {}).items():
            yield f"{word} {name}", _group(own)
    fairness = summary.get("fairness", {}).get("jain_tokens")
    if fairness is not None:
        yield "fairness", f"Jain's index {digits(fairness)} of the tokens served, each by its tenant's weight"


def _group(own: dict[str, Any]) -> str:
    requests, slo = own["requests"], own["slo"]
    text = f"{requests['completed']:,} of {requests['submitted']:,} completed"
    if own["ttft_s"]["p50"] is not None:
        text += f", TTFT p50 {duration(own['ttft_s']['p50'])} p99 {duration(own['ttft_s']['p99'])}"
    if own["e2e_s"]["p99"] is not None:
        text += f", E2E p99 {duration(own['e2e_s']['p99'])}"
    if slo["attainment"] is not None:
        text += f", {percent(slo['attainment'])} within the SLO"
    if slo.get("met") is not None:
        text += f", which is {'met' if slo['met'] else 'MISSED'}"
    if own.get("round_trip_s") is not None:
        text += f"; {percent(own['local_share'])} served here, round trip {duration(own['round_trip_s'])}"
    return text
