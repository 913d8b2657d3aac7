"""The log of inference-perf, per_request_lifecycle_metrics.json: a list with the times and tokens of every request.

https://github.com/kubernetes-sigs/inference-perf, docs/reports.md. How requests were sent stands in
config.yaml beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hermes_flow.config.documents import read_yaml
from hermes_flow.workload.records.beside import beside
from hermes_flow.workload.records.fields import at, first_of, left_out, ns, number, since_first, whole
from hermes_flow.workload.records.record_format import (
    Load,
    Record,
    Row,
    Run,
    Source,
    closed_loop,
    record_formats,
)
from hermes_flow.workload.records.sent_load import in_flight_note

_PROMPTS = (
    "info.input_tokens",
    "info.request_metrics.text.input_tokens",
    "info.request_metrics.input_tokens",
)
_ANSWERS = ("info.output_tokens", "info.response_metrics.output_tokens")
_TIMES = ("info.output_token_times", "info.response_metrics.output_token_times")


@record_formats.register("inference_perf")
class InferencePerf:
    """inference-perf's log: requests at their start, or by the workers of a concurrent load."""

    @staticmethod
    def fits(value: Any) -> bool:
        """Return whether it is such a log."""
        first = value[0] if isinstance(value, list) and value else None
        return isinstance(first, dict) and {"start_time", "end_time", "info"} <= set(first)

    @staticmethod
    def runs(records: Sequence[Record], source: Source) -> list[Run]:
        """Return the one run of the file."""
        found = records[0].value
        starts = since_first([number(at(request, "start_time")) for request in found])
        rows = [_row(request, start) for request, start in zip(found, starts, strict=True)]
        kept = [row for row in rows if row is not None]
        load, known = _load(source)
        notes = [] if known else in_flight_note(kept)
        failed = left_out(len(rows) - len(kept), len(rows), "failed in the benchmark")
        return [Run(kept, load, None, (*failed, *notes))]


def _row(request: Any, arrival_ns: int | None) -> Row | None:
    prompt, answer = whole(first_of(request, *_PROMPTS)), whole(first_of(request, *_ANSWERS))
    start, end = number(at(request, "start_time")), number(at(request, "end_time"))
    if at(request, "error") or not prompt or not answer or start is None or end is None:
        return None
    times = first_of(request, *_TIMES)
    first = number(times[0]) if isinstance(times, list) and times else None
    ttft = None if first is None or first < start else first - start
    return Row(prompt, answer, arrival_ns, ttft_ns=ns(ttft), e2e_ns=ns(end - start))


def _load(source: Source) -> tuple[Load | None, bool]:
    config = beside(source, "config.yaml", read_yaml)
    if config is None:
        return None, False
    kind, stages = at(config, "load.type"), at(config, "load.stages")
    if kind != "concurrent" or not isinstance(stages, list):
        return None, kind is not None
    users = {whole(at(stage, "concurrency_level")) for stage in stages}
    return (closed_loop(users.pop() or 1), True) if len(users) == 1 and None not in users else (None, False)
