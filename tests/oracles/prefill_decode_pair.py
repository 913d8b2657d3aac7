"""One prefill client and one decode client: the naive clients in a row, and the same two as a Program.

The network between them is wide enough for a transfer to take its latency and nothing else, so that the second
client's arrivals follow from the first one's steps.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import numpy as np
from oracles.llm_client import PLAIN, OraclePolicy, OracleRequest, OracleResult, simulate_llm_client
from oracles.random_systems import RandomSystem, random_system

from hermes_flow.batching.packing import packing_orders
from hermes_flow.compiler.program import (
    PS_PER_NS,
    LLMClientSpec,
    Network,
    NetworkLevel,
    Op,
    Pool,
    Prefixes,
    Program,
    Requests,
    SLOBounds,
)
from hermes_flow.coordinator.routing.round_robin import RoundRobin

WIDE = 1e15  # bytes per ns


@dataclass(frozen=True)
class PrefillDecodePair:
    """Two clients, what each is told, and the requests, which fit either of them alone."""

    prefill: LLMClientSpec
    decode: LLMClientSpec
    requests: list[OracleRequest]
    latency_ns: int
    prefill_policy: OraclePolicy = PLAIN
    decode_policy: OraclePolicy = PLAIN


@dataclass(frozen=True)
class PairResult:
    """What each client did; ``decoded`` maps a request to its place in ``decode``'s result."""

    prefill: OracleResult
    decode: OracleResult
    decoded: dict[int, int]


def random_pair(
    rng: random.Random,
    batching: str,
    lookahead: int,
    prefill_policy: OraclePolicy = PLAIN,
    decode_policy: OraclePolicy = PLAIN,
) -> PrefillDecodePair:
    """Draw two clients; ``batching`` and ``lookahead`` are the decode client's, the other's are drawn."""
    first = random_system(rng, rng.choice(["chunked", "continuous", "mixed"]), policy=prefill_policy)
    second = random_system(rng, batching, lookahead, policy=decode_policy)
    while _longest(second) < _longest(first):  # its cost table must cover the first one's requests
        second = random_system(rng, batching, lookahead, policy=decode_policy)
    longest = _longest(first)
    return PrefillDecodePair(
        prefill=_tight(first.spec, longest, rng),
        decode=_tight(second.spec, longest, rng),
        requests=first.requests,
        latency_ns=rng.choice([0, 0, 1, 10, 5000]),
        prefill_policy=first.policy,
        decode_policy=_copying_takes_time(second.policy),
    )


def simulate_pair(pair: PrefillDecodePair) -> PairResult:
    """Run the prefill client alone, then the decode client with what that hands over."""
    asked = [replace(request, output=1) for request in pair.requests]
    prefill = simulate_llm_client(pair.prefill, asked, pair.prefill_policy)
    emitted = [
        index for step in prefill.steps for index in step.tokens if prefill.finish_ps[index] == step.end_ps
    ]
    order = [index for index in dict.fromkeys(emitted) if pair.requests[index].output > 1]
    handed = [
        replace(
            pair.requests[index],
            arrival_ns=prefill.finish_ps[index] // PS_PER_NS + pair.latency_ns,
            block_keys=(),
            prefilled=True,
        )
        for index in order
    ]
    decode = simulate_llm_client(pair.decode, handed, pair.decode_policy)
    return PairResult(prefill, decode, {index: place for place, index in enumerate(order)})


def pair_program(pair: PrefillDecodePair, kv_bytes_per_token: int = 3) -> Program:
    """Return the two clients as a Program, on one node."""
    requests = pair.requests
    prompt = np.array([request.prompt for request in requests], dtype=np.int64)
    output = np.array([request.output for request in requests], dtype=np.int64)
    arrival = np.array([request.arrival_ns for request in requests], dtype=np.int64)
    level = NetworkLevel(efficiency=1.0, latency_ns=pair.latency_ns)
    return Program(
        name="pair",
        pipeline="llm",
        cluster="pair",
        pools=(
            _pool("prefill", pair.prefill, pair.prefill_policy),
            _pool("decode", pair.decode, pair.decode_policy),
        ),
        ops=(
            Op(
                name="prefill",
                kind="generate",
                stages=("prefill",),
                stage_kinds=("prefill",),
                pool=0,
                after=(),
                prompt=prompt,
                output=np.ones_like(output),
            ),
            Op(
                name="decode",
                kind="generate",
                stages=("decode",),
                stage_kinds=("decode",),
                pool=1,
                after=(0,),
                taken=output > 1,
                prompt=prompt,
                output=output,
                kv_from=0,
                kv_bytes=prompt * kv_bytes_per_token,
            ),
        ),
        requests=Requests(arrival, prompt, output, prefixes=_prefixes(pair)),
        slo=SLOBounds("none"),
        network=Network(
            "wide", ("prefill/0", "decode/0"), (0, 0), 1, (WIDE,) * 2, (WIDE,) * 2, level, level, level
        ),
    )


def _longest(system: RandomSystem) -> int:
    return max(request.prompt + request.output for request in system.requests)


def _tight(spec: LLMClientSpec, longest: int, rng: random.Random) -> LLMClientSpec:
    return replace(spec, kv_blocks=-(-longest // spec.block_size) + rng.choice([0, 0, 1, 2, 5]))


def _copying_takes_time(policy: OraclePolicy) -> OraclePolicy:
    if policy.preemption != "swap":
        return policy
    return replace(policy, swap_ps_per_block=policy.swap_ps_per_block or PS_PER_NS)


def _pool(name: str, spec: LLMClientSpec, policy: OraclePolicy) -> Pool:
    packing = None
    if policy.packing != "fcfs":
        packing = packing_orders.parse({"order": policy.packing}, "packing")
    client = replace(
        spec,
        packing=packing,
        preemption=policy.preemption,
        swap_ps_per_block=policy.swap_ps_per_block,
        prefix_cache=policy.prefix_cache,
    )
    return Pool(name=name, hardware="any", count=1, routing=RoundRobin(), client=client)


def _prefixes(pair: PrefillDecodePair) -> Prefixes | None:
    if not pair.prefill_policy.prefix_cache:
        return None
    number: dict[object, int] = {}
    keys = [[number.setdefault(key, len(number)) for key in request.block_keys] for request in pair.requests]
    return Prefixes(
        ids=np.array([key for row in keys for key in row], dtype=np.int64),
        offsets=np.cumsum([0, *(len(row) for row in keys)]),
        block_tokens=pair.prefill.block_size,
    )
