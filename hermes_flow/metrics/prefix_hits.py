"""Counts the prompt tokens that prefix caches found over a whole run."""

from __future__ import annotations

from typing import Any

from hermes_flow.recording.recording import Recording


def prefix_summary(recording: Recording) -> dict[str, Any]:
    """Return ``{"prefix": {"hit_tokens", "hit_share"}}``; an empty dict where no cache could find anything.

    ``hit_share`` is the share of all prompt tokens of the tasks that ran on LLM clients with a prefix cache. A decode
    that takes over the KV of a prefill has no prompt of its own here.
    """
    program = recording.program
    hits = prompts = 0
    findable = False
    for op, record in zip(program.ops, recording.ops, strict=True):
        if not getattr(program.pools[op.pool].client, "prefix_cache", False) or op.kv is not None:
            continue
        work = op.llm
        if work is None or record.cached_tokens is None:
            continue
        findable = findable or program.requests.prefixes is not None or work.extends is not None
        ran = record.start_ns >= 0
        hits += int(record.cached_tokens[ran].sum())
        prompts += int(work.prompt[ran].sum())
    if not findable or not prompts:
        return {}
    return {"prefix": {"hit_tokens": hits, "hit_share": hits / prompts}}
