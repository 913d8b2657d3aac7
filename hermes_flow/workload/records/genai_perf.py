"""The records of GenAI-Perf, profile_export.json: experiments with the times of every response.

https://github.com/triton-inference-server/perf_analyzer, genai-perf/docs/files.md. Its files hold texts; tokens are
known where the responses have the usage that the server reported, else they are counted. As in GenAI-Perf itself,
responses without any text (a first one with the role alone, a last one with the usage, ``[DONE]``) are no tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hermes_flow.workload.records.fields import at, first_of, left_out, whole
from hermes_flow.workload.records.record_format import (
    Load,
    Record,
    Row,
    Run,
    Source,
    closed_loop,
    record_formats,
)
from hermes_flow.workload.records.texts import counted_by, token_counter

_WRITTEN = ("delta.content", "delta.reasoning_content", "delta.reasoning", "message.content", "text")

Counter = Callable[[str], int]


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
    told = source.tokenizer is not None or source.characters_per_token is not None
    count = token_counter(source) if told else None
    rows = [_row(request, origin, source, count) for request in requests]
    kept = [row for row in rows if row is not None]
    failed = left_out(len(rows) - len(kept), len(rows), "have no response")
    return Run(kept, _load(experiment), None, [*failed, *(counted_by(source) if told else [])])


def _row(request: dict[str, Any], origin_ns: int, source: Source, count: Counter | None) -> Row | None:
    start, times = whole(request.get("timestamp")), request.get("response_timestamps")
    if start is None or not isinstance(times, list) or not times:
        return None
    outputs = request.get("response_outputs")
    texts = [_text(output) for output in outputs] if isinstance(outputs, list) else [None] * len(times)
    written = [int(time) for time, text in zip(times, texts, strict=True) if text != ""]
    if not written:
        return None
    prompt, answer = _tokens(request, texts, count)
    if not prompt or not answer:
        raise source.error(
            None,
            "holds texts but not how many tokens they are; set workload.tokenizer, or "
            "workload.characters_per_token=4 as an approximation, or run GenAI-Perf with "
            '--extra-inputs stream_options:{"include_usage":true}',
        )
    first, last = written[0] - start, written[-1] - start
    return Row(prompt, answer, start - origin_ns, ttft_ns=first, e2e_ns=last)


def _tokens(
    request: dict[str, Any], texts: Sequence[str | None], count: Counter | None
) -> tuple[int | None, int | None]:
    """Return the tokens of the prompt and of the answer: as the server reported them, else as they are counted."""
    outputs = request.get("response_outputs")
    for output in reversed(outputs if isinstance(outputs, list) else []):
        for part in _parts(output):
            prompt, answer = (
                whole(at(part, f"usage.{name}")) for name in ("prompt_tokens", "completion_tokens")
            )
            if prompt and answer:
                return prompt, answer
    if count is None:
        return None, None
    asked = _prompt(request.get("request_inputs"))
    return count(asked) if asked else None, count("".join(text or "" for text in texts)) or None


def _text(output: Any) -> str | None:
    """Return the text of a response, "" where it has none, None where its form is not known."""
    plain = at(output, "text_output")
    if isinstance(plain, str):
        return plain
    if at(output, "response") == "" or "[DONE]" in str(at(output, "response"))[:20]:
        return ""
    parts = list(_parts(output))
    if not parts:
        return None
    choices = [choice for part in parts for choice in part.get("choices") or []]
    return "".join(str(first_of(choice, *_WRITTEN) or "") for choice in choices)


def _parts(output: Any) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of a response, which may hold several events of a stream."""
    for part in str(at(output, "response") or "").split("data: "):
        try:
            found = json.loads(part)
        except ValueError:
            continue
        if isinstance(found, dict):
            yield found


def _prompt(inputs: Any) -> str:
    """Return the texts that a request sent, without the words of a chat template."""
    payload = at(inputs, "payload")
    try:
        sent = json.loads(payload) if isinstance(payload, str) else inputs
    except ValueError:
        return ""
    messages = at(sent, "messages")
    if isinstance(messages, list):
        contents = [at(message, "content") for message in messages]
        pieces = [
            piece for content in contents for piece in (content if isinstance(content, list) else [content])
        ]
        return "".join(piece if isinstance(piece, str) else str(at(piece, "text") or "") for piece in pieces)
    found = first_of(sent, "prompt", "text_input", "input")
    return found if isinstance(found, str) else ""


def _load(experiment: dict[str, Any]) -> Load | None:
    if at(experiment, "experiment.mode") != "concurrency":
        return None
    users = whole(at(experiment, "experiment.value"))
    return closed_loop(users) if users else None
