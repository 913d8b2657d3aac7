"""Counts the tokens of texts, by a tokenizer or by an approximation, where a file holds texts in place of lengths."""

from __future__ import annotations

import math
from collections.abc import Callable

from hermes_flow.errors import ConfigError
from hermes_flow.workload.number_checks import require_positive
from hermes_flow.workload.records.record_format import Source


def token_counter(source: Source) -> Callable[[str], int]:
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


def counted_by(source: Source) -> list[str]:
    """Return a note that lengths are an approximation, where no tokenizer counts them."""
    if source.tokenizer is not None:
        return []
    return [
        f"workload.path: lengths are an approximation of {source.characters_per_token:g} characters per token; "
        "workload.tokenizer counts them"
    ]
