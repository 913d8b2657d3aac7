"""The workloads of LLMServingSim: JSON lines of requests, or of sessions whose calls follow each other.

https://github.com/casys-kaist/LLMServingSim, docs/docs/workloads/jsonl-format.md. Flat lines have input_toks,
output_toks,
arrival_time_ns; agentic ones session_id, arrival_time_ns and sub_requests, each with a tool_duration_ns after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hermes_flow.workload.records.fields import required_whole
from hermes_flow.workload.records.record_format import Record, Row, Run, Source, record_formats

_READ = {"session_id", "arrival_time_ns", "sub_requests", "input_toks", "output_toks", "tool_duration_ns"}
_READ |= {"input_tok_ids", "output_tok_ids"}  # answers are sequences that nothing asks for again
_BLOCK_TOKENS = 16  # the block size of the simulator's prefix cache, and what the native format's ids name

Chains = dict[tuple[int, tuple[Any, ...]], int]


@record_formats.register("llmservingsim")
class LLMServingSim:
    """LLMServingSim's workloads: a call of a session arrives after the call before it and that one's tool."""

    @staticmethod
    def fits(value: Any) -> bool:
        """Return whether it is a line of such a workload."""
        return isinstance(value, dict) and bool({"input_toks", "sub_requests"} & set(value))

    @staticmethod
    def runs(records: Sequence[Record], source: Source) -> list[Run]:
        """Return the one run of the file."""
        rows: list[Row] = []
        chains: Chains = {}
        unlike = unnamed = 0
        for record in records:
            calls = _calls(record, source)
            for call, start, delay in calls:
                row = _row(call, start, delay, record, source, chains)
                unlike += row.prefix_hashes is None and bool(call.get("input_tok_ids"))
                unnamed += len(calls) > 1 and row.prefix_hashes is None
                rows.append(row)
        notes = _unread(records)
        if unlike:
            notes.append(
                f"workload.path: input_tok_ids of {unlike:,} requests are not as many as their "
                "input_toks, and are not "
                "used; their prompts share nothing"
            )
        elif unnamed:
            notes.append(
                "workload.path: calls of sessions have no input_tok_ids; their prompts share "
                "nothing, and a prefix cache "
                "finds none of them again"
            )
        return [Run(rows, notes=notes)]


def _unread(records: Sequence[Record]) -> list[str]:
    """Return a note on the keys that are not read, as those of a failover or of a cached prefix."""
    objects = [record.value for record in records if isinstance(record.value, dict)]
    calls = [call for value in objects for call in value.get("sub_requests") or () if isinstance(call, dict)]
    unread = sorted({key for value in (*objects, *calls) for key in value} - _READ)
    return [f"workload.path: {', '.join(unread)} of the requests is not used"] if unread else []


def _calls(record: Record, source: Source) -> list[tuple[dict[str, Any], int | None, int | None]]:
    """Return the calls of a line with their arrival and their delay after the call before."""
    value = record.value
    start = required_whole(value.get("arrival_time_ns"), "arrival_time_ns", 0, source, record.line)
    calls = value.get("sub_requests")
    if calls is None:
        return [(value, start, None)]
    if not isinstance(calls, list) or not calls or not all(isinstance(call, dict) for call in calls):
        raise source.error(record.line, "sub_requests is no list of requests")
    tools = [
        required_whole(call.get("tool_duration_ns", 0), "tool_duration_ns", 0, source, record.line)
        for call in calls
    ]
    return [
        (call, None if place else start, tools[place - 1] if place else None)
        for place, call in enumerate(calls)
    ]


def _row(
    call: dict[str, Any],
    start: int | None,
    delay: int | None,
    record: Record,
    source: Source,
    chains: Chains,
) -> Row:
    prompt = required_whole(call.get("input_toks"), "input_toks", 1, source, record.line)
    answer = required_whole(call.get("output_toks"), "output_toks", 1, source, record.line)
    session = record.value.get("session_id")
    if delay is not None and session is None:
        session = f"line {record.line}"
    ids = call.get("input_tok_ids")
    named = isinstance(ids, list) and len(ids) == prompt
    return Row(
        prompt,
        answer,
        start,
        session=None if session is None else str(session),
        delay_ns=delay,
        prefix_hashes=_blocks(ids, chains) if named and isinstance(ids, list) else None,
        line=record.line,
    )


def _blocks(ids: list[Any], chains: Chains) -> tuple[int, ...]:
    """Number the full blocks of a prompt, so that equal numbers are equal content with all that comes before."""
    blocks: list[int] = []
    before = -1
    for begin in range(0, len(ids) - _BLOCK_TOKENS + 1, _BLOCK_TOKENS):
        before = chains.setdefault((before, tuple(ids[begin : begin + _BLOCK_TOKENS])), len(chains))
        blocks.append(before)
    return tuple(blocks)
