"""Names the columns of a trace that carry something which the simulation could know, but that are not used."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

# What a column is about, by the words that its name consists of.
_SUBJECTS = {
    "sessions": (
        "session",
        "session_id",
        "session_index",
        "conversation",
        "conversation_id",
        "conv_id",
        "chat_id",
        "parent_chat_id",
        "dialog_id",
        "turn",
        "turn_index",
        "round",
        "user_id",
        "sub_requests",
    ),
    "prefixes": (
        "hash_ids",
        "prefix_hashes",
        "block_hash_ids",
        "block_hashes",
        "block_ids",
        "prefix",
        "prefix_id",
        "prefix_group",
        "prefix_length",
        "shared_prefix_length",
        "input_tok_ids",
        "token_ids",
        "prompt_token_ids",
        "cached_tokens",
        "reuse_prefix_toks",
    ),
    "images": (
        "num_images",
        "numimages",
        "images",
        "image",
        "image_count",
        "image_tokens",
        "num_image_tokens",
        "videos",
        "num_videos",
        "audios",
        "mm_hashes",
    ),
    "priorities": ("priority", "slo_class", "slo", "deadline", "tier", "service_class", "tenant_class"),
    "models": ("model", "model_name", "model_id", "model_type"),
    "adapters": ("adapter", "adapter_id", "adapter_name", "lora", "lora_id", "lora_name", "lora_adapter"),
    "gaps between turns": (
        "delay",
        "delay_ms",
        "think_time",
        "think_time_s",
        "tool_duration_ns",
        "tool_duration_ms",
    ),
}
_CONTRACT = {
    "sessions": "session",
    "prefixes": "prefix_hashes",
    "images": "images",
    "priorities": "priority",
    "models": "model",
    "adapters": "adapter",
    "gaps between turns": "delay_ms",
}


def unused_notes(names: Iterable[str], used: Collection[str]) -> list[str]:
    """Return a warning for every unused column that has sessions, prefixes, images, models or the like."""
    notes = []
    for name in names:
        subject = None if name in used else _subject(name)
        if subject is not None:
            notes.append(
                f"workload.path: the column {name!r} ({subject}) is not used; "
                f"workload.columns={{{_CONTRACT[subject]}: {name}}} would read it (docs/workloads.md)"
            )
    return notes


def _subject(name: str) -> str | None:
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip())
    words = re.sub(r"[\s.-]+", "_", words).lower()
    for subject, known in _SUBJECTS.items():
        if words in known or words.replace("_", "") in known:
            return subject
    return None
