"""Reads the lists of ``vllm bench serve`` and of SGLang's bench_serving, which have one entry per request.

Both write input_lens, output_lens, ttfts and itls (seconds), and vLLM also start_times. An answer ends the sum of its
itls after its first token.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from hermes_flow.workload.records.fields import left_out, ns, number, since_first, whole
from hermes_flow.workload.records.record_format import Record, Row, Run, Source
from hermes_flow.workload.records.sent_load import load_of

_LISTS = ("input_lens", "output_lens", "ttfts", "itls", "start_times", "errors")


def bench_run(record: Record, source: Source, option: str) -> Run:
    """Return the run of one result; ``option`` is the one that saves single requests. Raises TraceError."""
    value = record.value
    lists = {name: value[name] for name in _LISTS if isinstance(value.get(name), list) and value[name]}
    lacking = [name for name in ("input_lens", "output_lens", "ttfts") if name not in lists]
    if lacking:
        problem = (
            f"has no {', '.join(lacking)}, so single requests are not known; run the benchmark with {option}"
        )
        raise source.error(record.line, problem)
    count = len(lists["output_lens"])
    odd = [f"{name} {len(found)}" for name, found in lists.items() if len(found) != count]
    if odd:
        problem = f"output_lens has {count} entries and {', '.join(odd)}; expected as many"
        raise source.error(record.line, problem)
    starts = [number(at) for at in lists["start_times"]] if "start_times" in lists else [None] * count
    arrivals = since_first(starts)
    rows = [_row(lists, place, arrivals[place], record.line) for place in range(count)]
    kept = [row for row in rows if row is not None]
    if value.get("ramp_up_strategy") and None in arrivals:
        problem = "has ramp_up_strategy but no start_times, so that its arrivals are not known"
        raise source.error(record.line, problem)
    sent = (value.get("request_rate"), value.get("burstiness"), value.get("max_concurrency"))
    load, notes = load_of(*sent, len(kept), timed=None not in arrivals)
    _check_seconds(kept, number(value.get("duration")), record, source)
    failed = left_out(count - len(kept), count, "failed in the benchmark")
    return Run(kept, load, number(value.get("duration")), (*failed, *notes))


def _check_seconds(rows: Sequence[Row], duration_s: float | None, record: Record, source: Source) -> None:
    """Raise TraceError where a request took longer than the whole run, so that its unit cannot be seconds."""
    longest = max((max(row.ttft_ns or 0, row.e2e_ns or 0) for row in rows), default=0) / 1e9
    if duration_s and longest > 1.5 * duration_s:
        problem = (
            f"a request took {longest:g} s by ttfts and itls, and the whole run {duration_s:g} s by duration; "
            "expected seconds in all of them"
        )
        raise source.error(record.line, problem)


def _row(lists: dict[str, list[Any]], place: int, arrival_ns: int | None, line: int | None) -> Row | None:
    """Return one request, or None where it failed."""
    asked, written = whole(lists["input_lens"][place]), whole(lists["output_lens"][place])
    ttft = number(lists["ttfts"][place])
    failed = "errors" in lists and bool(lists["errors"][place])
    if failed or not asked or not written or asked < 1 or written < 1 or not ttft:
        return None
    gaps = lists["itls"][place] if "itls" in lists else None
    e2e = None
    if isinstance(gaps, Sequence) and (len(gaps) or written == 1):
        e2e = ttft + math.fsum(_gap(gap) for gap in gaps)
    return Row(asked, written, arrival_ns, ttft_ns=ns(ttft), e2e_ns=ns(e2e), line=line)


def _gap(value: Any) -> float:
    gap = number(value)
    if gap is None or gap < 0:
        raise ValueError(f"an entry of itls is {value!r}; expected seconds, 0 or more")
    return gap


def has_lists(value: Any) -> bool:
    """Return whether a record is the result of such a benchmark, with or without single requests."""
    if not isinstance(value, dict):
        return False
    return {"ttfts", "output_lens"} <= set(value) or {"request_throughput", "mean_ttft_ms"} <= set(value)


def is_sglang(value: dict[str, Any]) -> bool:
    """Return whether the result is of SGLang's benchmark, by what only it writes."""
    own = {"total_output_tokens_retokenized", "sharegpt_output_len", "random_range_ratio", "server_info"}
    return bool(own & set(value)) or str(value.get("backend", "")).startswith("sglang")
