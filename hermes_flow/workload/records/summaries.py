"""Recognizes the summaries that benchmarks write beside their logs, which hold statistics and no requests."""

from __future__ import annotations

from typing import Any

from hermes_flow.workload.records.fields import at

# The keys that tell a summary, its tool, and the file beside it that has the requests.
_SUMMARIES = (
    (("aiperf_version",), "AIPerf", "profile_export.jsonl"),
    (("input_config.loadgen",), "AIPerf", "profile_export.jsonl"),
    (("time_to_first_token.avg",), "GenAI-Perf", "profile_export.json"),
    (("request_latency.avg",), "GenAI-Perf", "profile_export.json"),
    (("load_summary", "successes"), "inference-perf", "per_request_lifecycle_metrics.json"),
    (("successes.latency",), "inference-perf", "per_request_lifecycle_metrics.json"),
)


def summary_of(document: Any) -> str:
    """Return what is wrong with a document that is the summary of a benchmark, "" for any other document."""
    for keys, tool, log in _SUMMARIES:
        if all(at(document, key) is not None for key in keys):
            return f"is a summary of {tool} without single requests; expected {log}, which {tool} writes beside it"
    return ""
