"""Words for worked examples of one LLM client: a small client, requests in µs, schedules to compare with."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from oracles.llm_client import OracleRequest, OracleResult
from oracles.random_systems import PS_PER_US, build_affine_cost
from oracles.small_clients import small_client

from hermes_flow.program.pools import LLMClientSpec

TEN_PLUS_TOKENS = build_affine_cost(10, 1, 0, max_tokens=64, max_seqs=16)  # µs: 10 + scheduled tokens

Schedule = list[tuple[int, int, dict[int, int]]]

# Two prompts of 3 tokens in 4 blocks of 2: at 28 the blocks of request 1 go to request 0, which ends at 50.
LAST_TOKEN_IN_FLIGHT: Schedule = [
    (0, 16, {0: 3, 1: 3}),
    (16, 28, {0: 1, 1: 1}),
    (28, 39, {0: 1}),
    (39, 50, {0: 1}),
]


def client(batching: str, lookahead: int, **changes: Any) -> LLMClientSpec:
    """Return a client of 100 blocks of 2 tokens, 4 seats and 8 tokens a step, with ``changes``."""
    own = {
        "kv_blocks": 100,
        "block_size": 2,
        "max_num_seqs": 4,
        "max_num_batched_tokens": 8,
        "cost": TEN_PLUS_TOKENS,
    }
    return small_client(**{**own, "batching": batching, "lookahead": lookahead, **changes})


def request(arrival_us: int, prompt: int, output: int, keys: tuple[Hashable, ...] = ()) -> OracleRequest:
    return OracleRequest(arrival_us * 1000, prompt, output, keys)


def schedule(result: OracleResult) -> Schedule:
    """Steps as (start µs, end µs, tokens)."""
    return [(step.start_ps // PS_PER_US, step.end_ps // PS_PER_US, step.tokens) for step in result.steps]


def in_us(times_ps: list[int]) -> list[int]:
    return [time // PS_PER_US for time in times_ps]
