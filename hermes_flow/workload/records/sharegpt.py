"""Conversations as ShareGPT publishes them: texts, whose tokens a tokenizer counts, or an approximation.

A list of objects with ``conversations`` (from, value) or ``messages`` (role, content). As serving benchmarks
do, the first
message of the user is the prompt, and the answer to it the answer; conversations have no arrivals.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hermes_flow.workload.records.fields import left_out
from hermes_flow.workload.records.record_format import Record, Row, Run, Source, record_formats
from hermes_flow.workload.records.texts import counted_by, token_counter

_LISTS = ("conversations", "conversation", "messages")
_USERS, _MODELS = ("human", "user"), ("gpt", "assistant", "chatgpt", "bing", "bard", "model")


@record_formats.register("sharegpt")
class ShareGPT:
    """ShareGPT's conversations: the lengths of the first question and answer of each."""

    @staticmethod
    def fits(value: Any) -> bool:
        """Return whether it is a conversation, or a list of such."""
        first = value[0] if isinstance(value, list) and value else value
        return isinstance(first, dict) and any(isinstance(first.get(name), list) for name in _LISTS)

    @staticmethod
    def runs(records: Sequence[Record], source: Source) -> list[Run]:
        """Return the one run of the file."""
        tokens = token_counter(source)
        found = [
            Record(record.line, value)
            for record in records
            for value in (record.value if isinstance(record.value, list) else [record.value])
        ]
        rows = []
        for record in found:
            texts = _first_turn(record.value)
            lengths = None if texts is None else [tokens(text) for text in texts]
            if lengths is not None and min(lengths) > 0:
                rows.append(Row(lengths[0], lengths[1], line=record.line))
        lost = left_out(len(found) - len(rows), len(found), "do not begin with a question and its answer")
        notes = [note.replace("requests", "conversations") for note in lost]
        return [Run(rows, notes=[*notes, *counted_by(source)])]


def _first_turn(value: Any) -> tuple[str, str] | None:
    messages: Any = next((value[name] for name in _LISTS if isinstance(value, dict) and value.get(name)), [])
    spoken = [
        (message.get("from", message.get("role")), message.get("value", message.get("content")))
        for message in messages
        if isinstance(message, dict) and message.get("from", message.get("role")) != "system"
    ]
    if len(spoken) < 2 or spoken[0][0] not in _USERS or spoken[1][0] not in _MODELS:
        return None
    question, answer = spoken[0][1], spoken[1][1]
    return (question, answer) if isinstance(question, str) and isinstance(answer, str) else None
