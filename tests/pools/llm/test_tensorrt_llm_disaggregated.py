"""Prefill and decode clients of TensorRT-LLM equal naive ones: KV is held until it is sent, seats are not."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
from oracles.llm_client import OraclePolicy
from oracles.prefill_decode_pair import PrefillDecodePair, pair_program
from oracles.random_systems import build_affine_cost, random_system
from oracles.tensorrt_llm_pair import Pair
from oracles.tensorrt_llm_scheduler import Request, Settings
from tries import tries

import hermes_flow as hf
from hermes_flow.machine.run import run
from hermes_flow.program.pools import LLMClientSpec, TensorRTSettings
from hermes_flow.program.program import Program

WIDE = 10**15


def random_settings(rng: random.Random, blocks: int, size: int, chunking: str) -> Settings:
    return Settings(
        blocks,
        size,
        rng.choice([1, 2, 4, 16]),
        rng.choice([64, 100]),
        rng.choice(["guaranteed_no_evict", "guaranteed_no_evict", "static_batch"]),
        chunking,
        None if chunking == "none" else size,
        rng.random() < 0.6,
        rng.randint(1, 9) * 1000,
        rng.randint(0, 5) * 100,
        rng.randint(0, 2) * 10,
    )


def spec_of(
    settings: Settings, side: Literal["prefill", "decode"], ranks: int, *, reuse: bool
) -> LLMClientSpec:
    cost = build_affine_cost(
        settings.fixed / 1000, settings.each / 1000, settings.past / 1000, 400, settings.seats
    )
    return LLMClientSpec(
        model="any",
        devices=1,
        kv_blocks=ranks * settings.blocks,
        block_size=settings.size,
        max_num_seqs=settings.seats,
        max_num_batched_tokens=settings.budget,
        batching="chunked",
        lookahead=int(settings.overlap),
        cost=cost.in_lockstep(ranks),
        attention_ranks=ranks,
        rank_routing="shared_queue",
        prefix_cache=reuse,
        tensorrt_llm=TensorRTSettings(settings.capacity, settings.chunking, settings.unit, side=side),
    )


def system(seed: int, ranks: tuple[int, int]) -> tuple[Pair, Program]:
    """Return a random pair of clients with so many ranks twice: as naive ones, and as a program."""
    rng = random.Random(f"tensorrt pair{seed}")
    size, reuse = rng.choice([1, 4, 8]), rng.random() < 0.5
    drawn = random_system(rng, "chunked", 1, OraclePolicy(prefix_cache=reuse)).requests
    drawn = [
        replace(
            one,
            arrival_ns=one.arrival_ns * 20,
            block_keys=one.block_keys[: one.prompt // size] if reuse else (),
        )
        for one in drawn
    ]
    limits = [one.output + rng.choice([0, 0, rng.randint(0, 40)]) for one in drawn]
    most = max(-(-(one.prompt + limit) // size) for one, limit in zip(drawn, limits, strict=True))
    chunking = rng.choice(["none", "first_come_first_served", "equal_progress"])
    prefill = random_settings(rng, most + rng.choice([0, 2, 10]), size, chunking)
    decode = random_settings(rng, most + rng.choice([0, 2, 10, 40]), size, "none")
    latency = rng.choice([0, 1, 500, 30_000])
    numbers: dict[object, int] = {}
    requests = []
    for number, (one, limit) in enumerate(zip(drawn, limits, strict=True)):
        names = [numbers.setdefault(key, len(numbers)) for key in one.block_keys]
        own = [-(1000 * number + place + 1) for place in range(len(names), (one.prompt + 1) // size)]
        asked = Request(one.arrival_ns, one.prompt, one.output, limit, [])
        computing = Request(one.arrival_ns, one.prompt, 1, 1, [*names, *own] if reuse else [])
        requests.append((asked, computing))
    naive = Pair(prefill, decode, (WIDE, latency, 3), requests, ranks)
    pair = PrefillDecodePair(
        prefill=spec_of(prefill, "prefill", ranks[0], reuse=reuse),
        decode=spec_of(decode, "decode", ranks[1], reuse=False),
        requests=drawn,
        latency_ns=latency,
        prefill_policy=OraclePolicy(prefix_cache=reuse),
    )
    program = pair_program(pair)
    limited = replace(program.requests, output_limit=np.array(limits, dtype=np.int64))
    return naive, replace(program, requests=limited)


def test_random_pairs_equal_the_naive_ones() -> None:
    check_pairs(range(tries(48, of=2000)), [(1, 1)])


def test_random_pairs_of_ranks_equal_the_naive_ones() -> None:
    held_back = check_pairs(range(tries(48, of=2000)), [(2, 1), (1, 2), (3, 2), (2, 4)])
    assert held_back > 10


def check_pairs(seeds: range, shapes: list[tuple[int, int]]) -> int:
    """Compare random pairs with the naive ones; return how many decisions one rank has put off for all."""
    pushed_back = held_back = 0
    for seed in seeds:
        naive, program = system(seed, shapes[seed % len(shapes)])
        naive.run()
        recording = run(program)
        first, second = recording.ops
        assert first.first_ns is not None
        assert second.first_ns is not None
        assert first.first_ns.tolist() == [own.first for _, own in naive.requests], seed
        wanted = [asked for asked, _ in naive.requests if asked.output > 1]
        several = [asked.output > 1 for asked, _ in naive.requests]
        assert second.first_ns[several].tolist() == [one.first for one in wanted], seed
        assert second.finish_ns[several].tolist() == [one.finish for one in wanted], seed
        for client, server in zip(recording.clients, naive.servers, strict=True):
            assert client.segments[:, 2].sum() == server.steps, seed
            held_back += server.shared.held_back
            assert all(rank.free() == rank.settings.blocks for rank in server.ranks)
        pushed_back += naive.pushed_back
    assert pushed_back > 50
    return held_back


PAIR = ["cluster=disaggregated", "engine=tensorrt_llm", "workload.requests=60", "slo=none"]


def simulated(*words: str) -> hf.Result:
    return hf.simulate(hf.compile(hf.compose([*PAIR, *words])))


def test_a_full_decode_side_fills_the_memory_of_the_prefill_side() -> None:
    words = ["pipeline=llm", "workload.rate_per_s=40", "cluster.pools.prefill.kv_blocks=2000"]
    small, large = (simulated(*words, f"cluster.pools.decode.kv_blocks={blocks}") for blocks in (120, 4000))
    peaks = [
        run.clients.filter(run.clients["pool"] == "prefill")["kv_peak_fraction"][0] for run in (small, large)
    ]
    assert peaks[0] > 2 * peaks[1]
    assert small.requests["ttft_s"].mean() > 2 * large.requests["ttft_s"].mean()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["cluster.first_token=decode"], r"cluster\.first_token: decode; with the scheduler of tensorrt_llm"),
        (["cluster.kv_transfer=layerwise"], r"cluster\.kv_transfer: layerwise is not modelled"),
        (
            ["cluster.pools.decode.prefix_cache=true"],
            r"pools\.decode\.prefix_cache: true, but decode clients",
        ),
        (
            ["cluster.pools.decode.capacity_scheduler_policy=max_utilization"],
            r"pools\.decode\.capacity_scheduler_policy: max_utilization is not modelled",
        ),
        (
            ["cluster.pools.decode.context_chunking_policy=equal_progress"],
            "context_chunking_policy: 'equal_progress' has no effect on a pool that only decodes",
        ),
        (["engine@cluster.pools.decode.engine=sglang"], "sglang cannot take over the KV of tensorrt_llm"),
    ],
)
def test_what_is_not_modelled_is_refused_by_name(words: list[str], message: str) -> None:
    with pytest.raises(hf.HermesFlowError, match=message):
        hf.compile(hf.compose([*PAIR, "pipeline=chat", *words]))
