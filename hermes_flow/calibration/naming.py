"""Compares the names of models and hardware in a table with those of the configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping

from hermes_flow.pools.llm.schema import LLMPool

_COLUMNS = {"model": "model", "hardware": "hardware", "gpu": "hardware"}  # of a table: what they name


def resembles(name: str, value: str) -> bool:
    """Return whether ``value`` contains every word of ``name``: "NVIDIA H100-SXM5" contains those of h100_sxm.

    Words without a digit do not count where others have one, as form factors are often left out.
    """
    words = re.findall(r"[a-z0-9]+", name.lower())
    telling = [word for word in words if re.search(r"\d", word)] or words
    return all(re.search(_pattern(word), value.lower()) for word in telling)


def as_configured(pool: LLMPool, of: Mapping[str, str]) -> list[str]:
    """Return a line with the pool's model and hardware if the rows of a table name others."""
    names = {"model": pool.model.name, "hardware": pool.hardware.name}
    others = [
        f"{column} {value}"
        for column, value in of.items()
        if column in _COLUMNS and not resembles(names[_COLUMNS[column]], value)
    ]
    if not others:
        return []
    return [
        f"as configured: model={names['model']} hardware={names['hardware']}; the rows say {', '.join(others)}"
    ]


def _pattern(word: str) -> str:
    """Return what finds the word with anything between its letters and its digits, and neither going on."""
    runs = re.findall(r"[a-z]+|\d+", word)
    before, after = (r"\d" if run[0].isdigit() else "[a-z]" for run in (runs[0], runs[-1]))
    return rf"(?<!{before})" + "[^a-z0-9]*".join(runs) + rf"(?!{after})"
