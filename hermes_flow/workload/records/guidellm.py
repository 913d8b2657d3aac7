"""The reports of GuideLLM: a JSON document with the benchmarks of a run or of a sweep.

https://github.com/vllm-project/guidellm. Requests carry their times as Unix seconds; the strategy of a benchmark says
how they were sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hermes_flow.workload.records.fields import first_of, left_out, ns, number, since_first, whole
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

_STARTS = (
    "info.timings.request_start",
    "request_start_time",
    "start_time",
    "scheduler_info.request_timings.request_start",
)
_ENDS = (
    "info.timings.request_end",
    "request_end_time",
    "end_time",
    "scheduler_info.request_timings.request_end",
)
_FIRSTS = (
    "info.timings.first_token_iteration",
    "info.timings.first_iteration",
    "first_token_time",
    "scheduler_info.request_timings.first_iteration",
)
_PROMPTS = ("prompt_tokens", "input_metrics.total_tokens", "input_metrics.text_tokens")
_ANSWERS = ("output_tokens", "output_metrics.total_tokens", "output_metrics.text_tokens")
_STRATEGIES = ("config.strategy", "args.strategy", "scheduler.strategy", "config.profile", "args.profile")


@record_formats.register("guidellm")
class GuideLLM:
    """GuideLLM's reports: requests at their times, or by the streams of a concurrent or synchronous strategy."""

    @staticmethod
    def fits(value: Any) -> bool:
        """Return whether it is a report of GuideLLM."""
        benchmarks = value.get("benchmarks") if isinstance(value, dict) else None
        return isinstance(benchmarks, list) and bool(benchmarks) and "requests" in benchmarks[0]

    @staticmethod
    def runs(records: Sequence[Record], source: Source) -> list[Run]:
        """Return a run per benchmark."""
        return [_run(benchmark, source) for benchmark in records[0].value["benchmarks"]]


def _run(benchmark: dict[str, Any], source: Source) -> Run:
    given = benchmark["requests"]
    groups = given if isinstance(given, dict) else {"successful": given}
    done = groups.get("successful") or groups.get("completed") or []
    others = sum(len(groups.get(name) or []) for name in ("incomplete", "errored"))
    starts = since_first([number(first_of(request, *_STARTS)) for request in done])
    rows = [_row(request, start) for request, start in zip(done, starts, strict=True)]
    kept = [row for row in rows if row is not None]
    load, notes = _load(benchmark, len(kept))
    notes += _sampled(benchmark, len(done), load, source)
    lost = left_out(others + len(done) - len(kept), others + len(done), "did not complete in the benchmark")
    return Run(in_sessions(kept), load, number(benchmark.get("duration")), (*lost, *notes))


def _sampled(benchmark: dict[str, Any], kept: int, load: Load | None, source: Source) -> list[str]:
    """Return a note where the report keeps a sample of its requests; raises TraceError where the load is lost."""
    completed = whole(first_of(benchmark, "metrics.request_totals.successful", "request_totals.successful"))
    if completed is None or not 0 < kept < completed:
        return []
    what = f"keeps {kept:,} of {completed:,} completed requests"
    if load is None:
        raise source.error(
            None, f"{what}, so that its load is not known; run GuideLLM without a sample of the requests"
        )
    return [f"workload.path: the report {what}"]


def _row(request: dict[str, Any], arrival_ns: int | None) -> Row | None:
    prompt, answer = whole(first_of(request, *_PROMPTS)), whole(first_of(request, *_ANSWERS))
    if not prompt or not answer:
        return None
    start, end = number(first_of(request, *_STARTS)), number(first_of(request, *_ENDS))
    first, after_ms = number(first_of(request, *_FIRSTS)), number(request.get("time_to_first_token_ms"))
    latency = number(request.get("request_latency"))
    ttft = after_ms / 1e3 if after_ms is not None else None
    if start is not None and first is not None:
        ttft = first - start
    if latency is None and start is not None and end is not None:
        latency = end - start
    conversation = first_of(request, "info.conversation_id")
    session = None if conversation is None else str(conversation)
    return Row(prompt, answer, arrival_ns, session, ttft_ns=ns(ttft), e2e_ns=ns(latency))


def _load(benchmark: dict[str, Any], requests: int) -> tuple[Load | None, list[str]]:
    strategy = first_of(benchmark, *_STRATEGIES)
    kind = str(first_of(strategy, "type_", "strategy_type", "kind") or "")
    users = whole(first_of(strategy, "streams", "max_concurrency"))
    if kind == "synchronous":
        return closed_loop(1), []
    if kind == "concurrent" and users:
        return closed_loop(users), []
    if kind == "throughput":
        return closed_loop(users or max(requests, 1)), []
    if kind in ("constant", "poisson", "async", "trace", "replay"):
        return None, []
    what = f"an unknown strategy, {kind}" if kind else "no strategy"
    return None, [f"workload.path: the report has {what}; requests are replayed at their recorded times"]
