"""The number of tokens of a query that is embedded or compared with documents."""

from __future__ import annotations

from typing import Any

from hermes_flow.program.units import Ints
from hermes_flow.stages.kind import RequestSizes
from hermes_flow.workload.lengths import parse_lengths, tokens

_KEY = "query_tokens"


def check_query(given: dict[str, Any] | int | None) -> None:
    """Raise ConfigError where ``query_tokens`` is neither null nor a number of tokens nor a distribution of them."""
    if given is not None:
        parse_lengths(given, _KEY)


def query_tokens(given: dict[str, Any] | int | None, sizes: RequestSizes) -> Ints:
    """Return the query's tokens per request: the request's input where nothing is given."""
    if given is None:
        return sizes.input_tokens
    return tokens(parse_lengths(given, _KEY), len(sizes.input_tokens), sizes.rng, _KEY)
