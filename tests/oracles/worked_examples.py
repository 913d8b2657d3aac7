"""Words for worked examples of one LLM client: a small client, requests in µs, schedules to compare with."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from typing import Any

from oracles.llm_client import OracleRequest, OracleResult
from oracles.random_systems import PS_PER_US, build_affine_cost

from hermes_flow.program.pools import LLMClientSpec

TEN_PLUS_TOKENS = build_affine_cost(10, 1, 0, max_tokens=64, max_seqs=16)  # µs: 10 + scheduled tokens

Schedule = list[tuple[int, int, dict[int, int]]]


def client(batching: str, lookahead: int, **changes: Any) -> LLMClientSpec:
    """Return a client of 100 blocks of 2 tokens, 4 seats and 8 tokens a step, with ``changes``."""
    spec = LLMClientSpec(
        model="worked example",
        devices=1,
        kv_blocks=100,
        block_size=2,
        max_num_seqs=4,
        max_num_batched_tokens=8,
        batching=batching,
        lookahead=lookahead,
        cost=TEN_PLUS_TOKENS,
    )
    return replace(spec, **changes)


def request(arrival_us: int, prompt: int, output: int, keys: tuple[Hashable, ...] = ()) -> OracleRequest:
    return OracleRequest(arrival_us * 1000, prompt, output, keys)


def schedule(result: OracleResult) -> Schedule:
    """Steps as (start µs, end µs, tokens)."""
    return [(step.start_ps // PS_PER_US, step.end_ps // PS_PER_US, step.tokens) for step in result.steps]


def in_us(times_ps: list[int]) -> list[int]:
    return [time // PS_PER_US for time in times_ps]
