"""Small random LLM clients under pressure, drawn from hypothesis (shrinking) or from a seed (fast).

Both sources share one description, ``_draw_system``: few blocks, so that preemption is common; few distinct
instants, so that arrivals tie with each other and with the ends of steps.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st
from oracles.llm_client import PLAIN, OraclePolicy, OracleRequest

from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.scan_cost import ScanCost
from hermes_flow.program.step_cost import StepCost
from hermes_flow.program.units import PS_PER_NS

PS_PER_US = 1_000_000

Between = Callable[[int, int], int]  # draws an integer between two bounds, both included


@dataclass(frozen=True)
class RandomSystem:
    """One client and the requests it gets, in order of arrival; every request fits the client alone."""

    spec: LLMClientSpec
    requests: list[OracleRequest]
    policy: OraclePolicy = PLAIN

    def with_ample_blocks(self) -> LLMClientSpec:
        """Return the client with blocks for all requests at once: nobody is preempted, nothing evicted."""
        size = self.spec.block_size
        kv_blocks = sum(-(-(request.prompt + request.output) // size) for request in self.requests)
        return replace(self.spec, kv_blocks=kv_blocks)


def random_system(
    rng: random.Random,
    batching: str | None = None,
    lookahead: int | None = None,
    policy: OraclePolicy = PLAIN,
) -> RandomSystem:
    """Draw a system from a seeded generator; ``batching`` and ``lookahead`` are drawn where not given.

    ``policy`` says what to draw for: with prefix cache, families of prompts that begin alike; with swapping,
    a price per block; with a packing order, what it orders by.
    """
    return _draw_system(rng.randint, batching, lookahead, policy)


@st.composite
def random_systems(
    draw: st.DrawFn,
    batching: str | None = None,
    lookahead: int | None = None,
    policy: OraclePolicy = PLAIN,
) -> RandomSystem:
    """Draw the same systems as ``random_system`` through hypothesis, which shrinks a failing one."""
    return _draw_system(lambda low, high: draw(st.integers(low, high)), batching, lookahead, policy)


def build_affine_cost(
    fixed_us: float, per_token_us: float, per_context_us: float, max_tokens: int, max_seqs: int
) -> StepCost:
    """Return the step cost fixed + per_token·(scheduled tokens) + per_context·(Σ tokens already computed).

    The tables cover steps of up to ``max_tokens`` tokens and ``max_seqs`` sequences.
    """
    fixed_ps, per_token_ps, per_context_ps = (
        round(us * PS_PER_US) for us in (fixed_us, per_token_us, per_context_us)
    )
    return StepCost(
        tokens_ps=[0] + [fixed_ps + per_token_ps * tokens for tokens in range(1, max_tokens + 1)],
        sequences_ps=[0] * (max_seqs + 1),
        decode_attention_ps=[0] * (max_seqs + 1),
        context_ps=per_context_ps,
        prefill_context_ps=per_context_ps,
    )


def _draw_system(
    between: Between, batching: str | None, lookahead: int | None, policy: OraclePolicy
) -> RandomSystem:
    max_num_seqs = between(1, 16)
    max_num_batched_tokens = max_num_seqs + between(0, 48)
    # A prompt of a few blocks is what a prefix cache is about.
    block_size = between(1, 4) if policy.prefix_cache else between(1, 16)
    # One unit for arrivals and costs makes an arrival coincide with the end of a step again and again.
    unit_ns = 10 ** between(0, 3)
    requests = _draw_requests(between, unit_ns)
    longest = max(request.prompt + request.output for request in requests)
    kv_blocks = -(-longest // block_size) + between(0, 4) ** between(0, 3)
    max_tokens = max(max_num_batched_tokens, longest) + max_num_seqs
    spec = LLMClientSpec(
        model="random",
        devices=1,
        kv_blocks=kv_blocks,
        block_size=block_size,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        batching=batching if batching is not None else ("chunked", "continuous")[between(0, 1)],
        lookahead=lookahead if lookahead is not None else between(0, 1),
        cost=_draw_cost(between, unit_ns, max_tokens, max_num_seqs),
    )
    if policy.packing in ("priority", "earliest_deadline", "vllm_priority"):
        requests = _draw_urgency(between, unit_ns, requests)
        policy = replace(policy, age_ns=unit_ns * between(0, 30))
    if policy.prefix_cache:
        requests = _draw_families(between, block_size, requests)
    if policy.preemption == "swap":
        policy = replace(policy, swap_ps_per_block=unit_ns * PS_PER_NS * between(0, 3))
    return RandomSystem(spec, requests, policy)


def _draw_requests(between: Between, unit_ns: int) -> list[OracleRequest]:
    """Draw 1 to 40 requests in clusters: most gaps are short or none, a few drain the client."""
    longest_prompt = between(1, 40)
    longest_output = between(1, 8) * between(1, 8)
    longest_gap = (0, 5, 50, 200)[between(0, 3)]
    now = between(0, 3)
    requests = []
    for _ in range(between(1, 40)):
        pause = between(0, 7)
        if pause == 7:
            now += between(0, 10 * longest_gap)
        elif pause >= 3:
            now += between(0, longest_gap)
        requests.append(OracleRequest(now * unit_ns, between(1, longest_prompt), between(1, longest_output)))
    return requests


def _draw_urgency(between: Between, unit_ns: int, requests: list[OracleRequest]) -> list[OracleRequest]:
    """Give each request a priority and a deadline."""
    return [
        replace(request, priority=between(0, 3), deadline_ns=unit_ns * between(0, 9) * between(0, 30))
        for request in requests
    ]


def _draw_families(between: Between, block_size: int, requests: list[OracleRequest]) -> list[OracleRequest]:
    """Let each prompt begin like those of its family: no block, some, or all of its full ones are common."""
    families = between(1, 4)
    related = []
    for request in requests:
        full_blocks = request.prompt // block_size
        common = (0, between(0, full_blocks), full_blocks)[between(0, 5) // 2]
        family = between(1, families)
        related.append(replace(request, block_keys=tuple((family, block) for block in range(common))))
    return related


def _draw_cost(between: Between, unit_ns: int, max_tokens: int, max_seqs: int) -> StepCost:
    """Draw a step cost: affine, or with every term; on the grid of arrivals, or not even on nanoseconds."""
    shape = ("affine", "grid", "grid", "off_grid")[between(0, 3)]
    fixed, per_token, per_context = between(1, 6), between(0, 3) // 2, between(0, 3) // 3
    if shape == "affine":
        unit_us = unit_ns / 1000
        return build_affine_cost(
            fixed * unit_us, per_token * unit_us, per_context * unit_us, max_tokens, max_seqs
        )
    grid_ps = unit_ns * PS_PER_NS
    unit_ps, odd_ps = (grid_ps, 0) if shape == "grid" else (grid_ps // 7, 337)
    tile, per_tile = between(1, 9), between(0, 2)  # tokens are computed in tiles: the cost of tokens jumps
    per_sequence, attention, attention_tile = between(0, 3) // 3, between(0, 2), between(1, 5)
    # The pairs of a chunk come in halves: an even price per pair keeps them on the grid.
    pair_price, half_length = (2 * (between(0, 3) // 3), 0) if shape == "grid" else (0.3, between(0, 9))
    return StepCost(
        tokens_ps=[0]
        + [
            unit_ps * (fixed + per_tile * -(-tokens // tile) + per_token * tokens) + odd_ps
            for tokens in range(1, max_tokens + 1)
        ],
        sequences_ps=[unit_ps * per_sequence * sequences for sequences in range(max_seqs + 1)],
        decode_attention_ps=[
            unit_ps * attention * -(-decodes // attention_tile) for decodes in range(max_seqs + 1)
        ],
        context_ps=unit_ps * per_context,
        prefill_launch_ps=unit_ps * between(0, 2),
        prefill_pair_ps=float(unit_ps * pair_price),
        prefill_half_length=float(half_length),
        prefill_context_ps=unit_ps * (between(0, 3) // 3),
        ingest_ns=unit_ns * between(0, 3),
        **_draw_mixed(between, unit_ps, max_seqs),
        **_draw_scans(random.Random(f"{unit_ps} {fixed} {tile} {max_tokens}"), unit_ps, max_tokens),
    )


def reaching(cost: StepCost, tokens_ps: list[int]) -> StepCost:
    """Return the step cost with a longer table of tokens; beyond its own one the host is never waited for."""
    idle = cost.idle_ps and cost.idle_ps + [0] * (len(tokens_ps) - len(cost.idle_ps))
    return replace(cost, tokens_ps=tokens_ps, idle_ps=idle)


def _draw_mixed(between: Between, unit_ps: int, max_seqs: int) -> dict[str, Any]:
    """Draw other times for decodes that share a step with a chunk, or none."""
    if between(0, 1):
        return {}
    start, per_sequence = between(0, 4), between(0, 2)
    table = [unit_ps * (start + per_sequence * decodes) for decodes in range(max_seqs + 1)]
    return {"mixed_attention_ps": table, "mixed_context_ps": unit_ps * between(0, 2)}


def _draw_scans(rng: random.Random, unit_ps: int, max_tokens: int) -> dict[str, Any]:
    """Draw scans over prompts whose heads work side by side, for one system in six."""
    if rng.randint(0, 5):
        return {}
    scan = ScanCost(unit_ps * rng.randint(0, 3), unit_ps * rng.randint(0, 2), rng.randint(0, 4))
    most = rng.randint(0, 9)
    idle = [unit_ps * max(0, most - tokens) for tokens in range(max_tokens + 1)]
    return {"scans": (scan,), "idle_ps": idle if rng.randint(0, 1) else []}
