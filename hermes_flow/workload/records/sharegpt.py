"""Conversations as ShareGPT publishes them: texts, whose tokens a tokenizer counts, or an approximation.

A list of objects with ``conversations`` (from, value) or ``messages`` (role, content). As serving benchmarks
do, the first
message of the user is the prompt, and the answer to it the answer; conversations have no arrivals.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from hermes_flow.errors import ConfigError
from hermes_flow.workload.number_checks import require_positive
from hermes_flow.workload.records.fields import left_out
from hermes_flow.workload.records.record_format import Record, Row, Run, Source, record_formats

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
        tokens = _counter(source)
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
        if source.tokenizer is None:
            notes.append(
                f"workload.path: lengths are an approximation of {source.characters_per_token:g} "
                "characters per token; "
                "workload.tokenizer counts them"
            )
        return [Run(rows, notes=notes)]


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


def _counter(source: Source) -> Callable[[str], int]:
    """Return the function that counts the tokens of a text; raises ConfigError where none is named."""
    if source.tokenizer is not None and source.characters_per_token is not None:
        raise ConfigError(
            "workload.characters_per_token", "does not go with workload.tokenizer; give one of them"
        )
    if source.characters_per_token is not None:
        require_positive(source.characters_per_token, "workload.characters_per_token", "characters")
        per_token = source.characters_per_token
        return lambda text: math.ceil(len(text) / per_token)
    if source.tokenizer is None:
        raise ConfigError(
            "workload.tokenizer",
            f"null, and {source.path} holds texts, not lengths; expected the path of a tokenizer.json, or "
            "workload.characters_per_token=4 as an approximation",
        )
    try:
        from tokenizers import Tokenizer  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        raise ConfigError(
            "workload.tokenizer",
            "needs the package tokenizers (pip install tokenizers), which is not installed",
        ) from None
    try:
        tokenizer = Tokenizer.from_file(source.tokenizer)
    except Exception as error:  # the library raises its own kinds
        raise ConfigError("workload.tokenizer", f"{source.tokenizer} cannot be read: {error}") from None
    return lambda text: len(tokenizer.encode(text).ids)
