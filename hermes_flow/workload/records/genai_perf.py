"""The records of GenAI-Perf, profile_export.json: experiments with the times of every response.

https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/perf_benchmark/genai_perf.html.
Its files hold
texts; tokens are known only where the responses have the usage that the server reported.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from hermes_flow.workload.records.fields import at, left_out, whole
from hermes_flow.workload.records.record_format import (
    Load,
    Record,
    Row,
    Run,
    Source,
    closed_loop,
    record_formats,
)

_USAGE = '"usage"'


@record_formats.register("genai_perf")
class GenAIPerf:
    """GenAI-Perf's records: requests at their time, or by the users of a concurrency experiment."""

    @staticmethod
    def fits(value: Any) -> bool:
        """Return whether it is such a file."""
        experiments = value.get("experiments") if isinstance(value, dict) else None
        return isinstance(experiments, list) and bool(experiments) and "requests" in experiments[0]

    @staticmethod
    def runs(records: Sequence[Record], source: Source) -> list[Run]:
        """Return a run per experiment; raises TraceError where the tokens are not known."""
        return [_run(experiment, source) for experiment in records[0].value["experiments"]]


def _run(experiment: dict[str, Any], source: Source) -> Run:
    requests = experiment["requests"]
    origin = min((whole(request.get("timestamp")) or 0 for request in requests), default=0)
    rows = [_row(request, origin, source) for request in requests]
    kept = [row for row in rows if row is not None]
    failed = left_out(len(rows) - len(kept), len(rows), "have no response")
    return Run(kept, _load(experiment), None, failed)


def _row(request: dict[str, Any], origin_ns: int, source: Source) -> Row | None:
    start, times = whole(request.get("timestamp")), request.get("response_timestamps")
    if start is None or not isinstance(times, list) or not times:
        return None
    usage = _usage(request.get("response_outputs"))
    prompt, answer = whole(at(usage, "prompt_tokens")), whole(at(usage, "completion_tokens"))
    if not prompt or not answer:
        raise source.error(
            None,
            "holds texts but not how many tokens they are; run GenAI-Perf with "
            '--extra-inputs stream_options:{"include_usage":true}, or use the profile_export.jsonl of AIPerf',
        )
    return Row(
        prompt, answer, start - origin_ns, ttft_ns=int(times[0]) - start, e2e_ns=int(times[-1]) - start
    )


def _usage(outputs: Any) -> Any:
    """Return the usage that the last response with one reports."""
    for output in reversed(outputs if isinstance(outputs, list) else []):
        text = str(at(output, "response") or "")
        for part in reversed(text.split("data: ")):
            if _USAGE not in part:
                continue
            try:
                found = at(json.loads(part), "usage")
            except ValueError:
                continue
            if found:
                return found
    return None


def _load(experiment: dict[str, Any]) -> Load | None:
    if at(experiment, "experiment.mode") != "concurrency":
        return None
    users = whole(at(experiment, "experiment.value"))
    return closed_loop(users) if users else None
