"""The records of AIPerf, profile_export.jsonl: one request a line, with metadata and metrics that carry their units.

https://github.com/ai-dynamo/aiperf, docs/tutorials/working-with-profile-exports.md. The first releases wrote
timestamp_ns, credit_phase and ttft (examples/artifacts/run1). How requests were sent stands in
profile_export_aiperf.json beside it, under input_config.loadgen, since release 0.10 under input_config.phases.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from hermes_flow.config.documents import read_json
from hermes_flow.workload.records.beside import beside
from hermes_flow.workload.records.fields import at, first_of, in_ns, left_out, whole
from hermes_flow.workload.records.record_format import (
    Load,
    Record,
    Row,
    Run,
    Source,
    closed_loop,
    in_sessions,
    record_formats,
)
from hermes_flow.workload.records.sent_load import in_flight_note

_SUMMARY = "profile_export_aiperf.json"
_STARTS = ("metadata.request_start_ns", "metadata.timestamp_ns")
_PHASES = ("metadata.benchmark_phase", "metadata.credit_phase")
_TTFTS = ("time_to_first_token", "ttft")
_LOADS = ("input_config.loadgen", "user_config.loadgen", "config.loadgen", "loadgen")


@record_formats.register("aiperf")
class AIPerf:
    """AIPerf's records: requests at their start, or by the users that the summary beside them names."""

    @staticmethod
    def fits(value: Any) -> bool:
        """Return whether it is a record of AIPerf."""
        return first_of(value, *_STARTS) is not None and isinstance(at(value, "metrics"), dict)

    @staticmethod
    def runs(records: Sequence[Record], source: Source) -> list[Run]:
        """Return the one run of the file, without its warm-up."""
        measured = [
            record
            for record in records
            if first_of(record.value, *_PHASES) in (None, "profiling", "PROFILING")
        ]
        origin = min((whole(first_of(record.value, *_STARTS)) or 0 for record in measured), default=0)
        rows = [_row(record, origin) for record in measured]
        kept = [row for row in rows if row is not None]
        load, known = _load(source)
        notes = [] if known else in_flight_note(kept)
        failed = left_out(len(rows) - len(kept), len(rows), "failed in the benchmark")
        return [Run(in_sessions(kept), load, None, (*failed, *notes))]


def _row(record: Record, origin_ns: int) -> Row | None:
    value, metrics = record.value, at(record.value, "metrics")
    prompt = whole(at(metrics, "input_sequence_length.value"))
    answer = whole(first_of(metrics, "output_sequence_length.value", "output_token_count.value"))
    failed = bool(value.get("error")) or bool(at(value, "metadata.was_cancelled"))
    start, end = whole(first_of(value, *_STARTS)), whole(at(value, "metadata.request_end_ns"))
    if failed or not prompt or not answer or start is None:
        return None
    latency = in_ns(at(metrics, "request_latency"))
    if latency is None and end is not None:
        latency = end - start
    session = first_of(value, "metadata.x_correlation_id", "metadata.conversation_id")
    return Row(
        prompt,
        answer,
        start - origin_ns,
        session=None if session is None else str(session),
        ttft_ns=in_ns(first_of(metrics, *_TTFTS)),
        e2e_ns=latency,
        line=record.line,
    )


def _load(source: Source) -> tuple[Load | None, bool]:
    """Return the load that the summary beside the records names, and whether it names one."""
    summary = beside(source, _SUMMARY, read_json)
    sent = first_of(summary, *_LOADS)
    phases = at(summary, "input_config.phases")
    if isinstance(phases, list):
        sent = next((phase for phase in phases if at(phase, "name") == "profiling"), None)
    if not isinstance(sent, dict):
        return None, False
    rate = sent.get("request_rate", sent.get("rate"))
    if rate not in (None, "inf", math.inf) or sent.get("fixed_schedule"):
        return None, True
    if sent.get("type") not in (None, "concurrency"):
        return None, True
    users = whole(sent.get("concurrency"))
    return (closed_loop(users), True) if users else (None, False)
