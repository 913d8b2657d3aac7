"""Contexts that are retrieved, and those that the LLM client still has in its own prefix cache."""

from __future__ import annotations

from typing import Any

import pytest
from kv_configs import run

import hermes_flow as hf

# The second request comes while the first one decodes: the store has nothing yet, the LLM client has the context.
TOGETHER: dict[str, Any] = {
    "requests": 2,
    "arrivals": "constant",
    "rate_per_s": 10.0,
    "input_tokens": 40,
    "output_tokens": 300,
}
CONTEXT = 165  # ten blocks of 16 and a part of the next one


def cached(result: hf.Result) -> list[int]:
    found: list[int] = result.requests["cached_tokens"].to_list()
    return found


@pytest.mark.parametrize(("prefix_cache", "found"), [(False, 0), (True, 160), (None, 160)])
def test_a_context_that_a_running_request_holds_is_found_before_the_store_keeps_it(
    prefix_cache: bool | None, found: int
) -> None:
    result = run({"context_tokens": CONTEXT, "contexts": 1}, llm={"prefix_cache": prefix_cache}, **TOGETHER)
    assert cached(result) == [0, found]


def test_the_store_spares_more_where_it_knows_the_whole_context() -> None:
    """Of the ten full blocks the prefix cache has all, and the store the tokens beyond them too."""
    apart = TOGETHER | {"rate_per_s": 0.5}
    recall = {"context_tokens": CONTEXT, "contexts": 1}
    assert cached(run(recall, llm={"prefix_cache": True}, **apart)) == [0, CONTEXT]
    assert cached(run(recall, llm={"prefix_cache": False}, **apart)) == [0, CONTEXT]


def test_contexts_that_nobody_shares_are_not_found() -> None:
    recall = {"context_tokens": CONTEXT, "hits": {"fast": 0.0}}
    assert cached(run(recall, llm={"prefix_cache": True}, **TOGETHER)) == [0, 0]


def test_other_contexts_are_other_blocks() -> None:
    many = TOGETHER | {"requests": 20, "output_tokens": 50}
    recall = {"context_tokens": CONTEXT, "contexts": 1_000_000}
    result = run(recall, llm={"prefix_cache": True}, **many)
    assert cached(result) == [0] * 20


def test_what_a_session_has_said_is_found_by_its_own_blocks() -> None:
    """A context that the prompts hold anyway: the blocks are those of the session, with or without a retrieval."""
    overrides = ("workload=sessions", "workload.sessions=3", "workload.turns=3")
    sizes: dict[str, Any] = {"input_tokens": 50, "output_tokens": 30, "system_prompt_tokens": 0}
    recall = {"per_session": True}
    result = run(recall, *overrides, llm={"prefix_cache": True}, store={"write_back": True}, **sizes)
    said = [0, 79, 159] * 3  # less the last token of each answer
    assert sorted(cached(result)) == sorted(said)
