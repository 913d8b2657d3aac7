"""Prompts that share content: a few beginnings with a few prompts each, in turn, or one beginning of all prompts."""

from __future__ import annotations

import numpy as np

from hermes_flow.config.schema import RepeatedPrompts
from hermes_flow.program.prefixes import SessionPrefixes
from hermes_flow.program.units import Ints
from hermes_flow.workload.lengths import parse_lengths, tokens
from hermes_flow.workload.lengths.distribution import Distribution
from hermes_flow.workload.streams import stream

_KEY = "workload.repeated_prompts"


def repeated_prompts(
    given: RepeatedPrompts, own: Distribution, outputs: Ints, seed: int
) -> tuple[Ints, SessionPrefixes]:
    """Return the prompts of requests whose answers have ``outputs`` tokens, and the content that they share.

    Request r has prompt r modulo their number, and the prompts take turns with the prefixes. Each prompt is a
    prefix and tokens of its own, drawn once from ``own``. Raises ConfigError.
    """
    count = given.prefixes * given.per_prefix
    prefix_tokens = _prefix_tokens(given, seed)
    own_tokens = tokens(own, count, stream(seed, "input_lengths"), "workload.input_tokens")
    prompt = np.arange(len(outputs), dtype=np.int64) % count
    prefix = prompt % given.prefixes
    inputs = prefix_tokens[prefix] + own_tokens[prompt]
    return inputs, SessionPrefixes(prompt, prefix, prefix_tokens[prefix], inputs, outputs)


def common_beginning(share: float, inputs: Ints, outputs: Ints) -> SessionPrefixes:
    """Return prompts of which the first ``share`` is the beginning of one text, and the rest is their own."""
    common = np.rint(share * inputs).astype(np.int64)
    return SessionPrefixes(np.arange(len(inputs)), np.zeros_like(inputs), common, inputs, outputs)


def _prefix_tokens(given: RepeatedPrompts, seed: int) -> Ints:
    if given.prefix_tokens == 0:
        return np.zeros(given.prefixes, dtype=np.int64)
    key = f"{_KEY}.prefix_tokens"
    lengths = parse_lengths(given.prefix_tokens, key)
    return tokens(lengths, given.prefixes, stream(seed, "system_prompt_lengths"), key)
