"""Prefill and decode clients of SGLang equal naive ones: memory before the prompt, KV that stays until it is gone."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from oracles.llm_client import OraclePolicy
from oracles.prefill_decode_pair import PrefillDecodePair, pair_program
from oracles.random_systems import build_affine_cost, random_system
from oracles.sglang_pair import AbortedError, Pair
from oracles.sglang_scheduler import Request, Settings
from tries import tries

import hermes_flow as hf
from hermes_flow.machine.run import run
from hermes_flow.pools.llm.rank_budget import room
from hermes_flow.program.pools import LLMClientSpec, SGLangSettings
from hermes_flow.program.program import Program

WIDE = 10**15
SEED = 7  # of the rooms


def random_settings(rng: random.Random, tokens: int, page: int, radix: bool) -> Settings:
    return Settings(
        rng.choice([1, 2, 3, 8, 40]),
        rng.choice([32, 100, 16384]),
        rng.choice([None, 16, 32, 64]),
        page,
        -(-tokens // page) * page,
        rng.choice(["fcfs", "lpm"]) if radix else "fcfs",
        radix_cache=radix,
        overlap=rng.random() < 0.6,
        fixed=rng.randint(1, 9) * 1000,
        per_token=rng.randint(0, 5) * 100,
        per_context=rng.randint(0, 2) * 10,
    )


def spec_of(
    settings: Settings, reserved: int, side: Literal["prefill", "decode"], ranks: int = 1
) -> LLMClientSpec:
    most = settings.max_running_requests
    cost = build_affine_cost(
        settings.fixed / 1000, settings.per_token / 1000, settings.per_context / 1000, 4000, most + 200
    )
    return LLMClientSpec(
        model="any",
        devices=1,
        kv_blocks=ranks * settings.max_total_num_tokens // settings.page_size,
        block_size=settings.page_size,
        max_num_seqs=most,
        max_num_batched_tokens=4000,
        batching="chunked",
        lookahead=int(settings.overlap),
        cost=cost.in_lockstep(ranks),
        attention_ranks=ranks,
        rank_routing="follow_bootstrap_room" if side == "prefill" else "round_robin",
        sglang=SGLangSettings(
            settings.max_prefill_tokens,
            settings.chunked_prefill_size,
            longest_prefix=settings.schedule_policy == "lpm",
            reserved_decode_tokens=reserved,
            receive_interval=settings.scheduler_recv_interval,
            side=side,
            room_seed=SEED,
            key=f"cluster.pools.{side}",
        ),
    )


def system(seed: int, ranks: tuple[int, int] = (1, 1)) -> tuple[Pair, Program]:
    """Return a random pair of clients with so many ranks twice: as naive ones, and as a program."""
    rng = random.Random(f"pair{seed}")
    page, radix = rng.choice([1, 1, 4, 16]), rng.random() < 0.5
    drawn = random_system(rng, "chunked", 1, OraclePolicy(prefix_cache=radix)).requests
    drawn = [
        replace(one, arrival_ns=one.arrival_ns * 20, block_keys=one.block_keys if radix else ())
        for one in drawn
    ]
    drawn = [replace(one, block_keys=one.block_keys[: one.prompt // page]) for one in drawn]
    limits = [one.output + rng.choice([0, 0, rng.randint(0, 40)]) for one in drawn]
    reserved = rng.choice([0, 4, 30])
    most = max(one.prompt + max(limit, reserved) for one, limit in zip(drawn, limits, strict=True))
    tight = most + 3 * page + 10
    prefill = random_settings(rng, tight + rng.randint(0, 60), page, radix)
    decode = replace(
        random_settings(rng, tight + rng.randint(0, 200), page, False), chunked_prefill_size=None
    )
    if ranks[1] == 1:
        decode = replace(
            decode, scheduler_recv_interval=random.Random(f"interval{seed}").choice([1, 1, 2, 9])
        )
    latency = rng.choice([0, 1, 500, 30_000])
    requests = []
    for number, (one, limit) in enumerate(zip(drawn, limits, strict=True)):
        names = [
            one.block_keys[at // page] + (at % page,) if at // page < len(one.block_keys) else (number, at)
            for at in range(one.prompt + one.output)
        ]
        content = [hash(("content", *name)) for name in names]
        requests.append(
            (
                Request(number, one.arrival_ns, one.prompt, one.output, limit, False, content),
                Request(number, one.arrival_ns, one.prompt, 1, 1, False, content),
            )
        )
    rooms = [room(SEED, number) for number in range(len(drawn))]
    naive = Pair(prefill, decode, reserved, (WIDE, latency, 3), requests, rooms, ranks)
    pair = PrefillDecodePair(
        prefill=spec_of(prefill, reserved, "prefill", ranks[0]),
        decode=spec_of(decode, reserved, "decode", ranks[1]),
        requests=drawn,
        latency_ns=latency,
        prefill_policy=OraclePolicy(prefix_cache=radix),
    )
    program = pair_program(pair)
    limited = replace(program.requests, output_limit=np.array(limits, dtype=np.int64))
    return naive, replace(program, requests=limited)


def test_random_pairs_equal_the_naive_ones() -> None:
    check_pairs(range(tries(48, of=3000)), [(1, 1)])


def test_random_pairs_of_ranks_equal_the_naive_ones() -> None:
    check_pairs(range(tries(48, of=3000)), [(2, 1), (1, 2), (3, 2), (2, 4)])


def check_pairs(seeds: range, shapes: list[tuple[int, int]]) -> None:
    retracted = pushed_back = aborted = 0
    for seed in seeds:
        naive, program = system(seed, shapes[seed % len(shapes)])
        try:
            naive.run()
        except AbortedError:
            with pytest.raises(
                hf.HermesFlowError, match=r"would abort a request: .*more cluster\.pools\.decode\.kv_blocks"
            ):
                run(program)
            aborted += 1
            continue
        recording = run(program)
        first, second = recording.ops
        wanted = [asked for asked, _ in naive.requests]
        assert first.first_ns is not None
        assert second.first_ns is not None
        assert first.first_ns.tolist() == [own.first for _, own in naive.requests], seed
        several = [asked.output > 1 for asked in wanted]
        assert second.first_ns[several].tolist() == [one.first for one in wanted if one.output > 1], seed
        assert second.finish_ns[several].tolist() == [one.finish for one in wanted if one.output > 1], seed
        for client, server in zip(recording.clients, naive.servers, strict=True):
            assert client.segments[:, 2].sum() == server.steps, seed
        retracted += sum(len(step.retracted) for rank in naive.decode for step in rank.steps)
        pushed_back += len(naive.waited)
        assert all(one.free + one.tree.evictable == one.s.max_total_num_tokens for one in naive.prefill)
        assert all(one.free == one.s.max_total_num_tokens for one in naive.decode)
    assert retracted > 5
    assert aborted < len(seeds) / 10
    assert pushed_back > 50


def test_rooms_spread_requests_over_ranks_as_draws_do() -> None:
    counts = [0] * 8
    for task in range(8000):
        counts[room(SEED, task) % 8] += 1
    # Of a fair draw each count is within four standard deviations of 1,000, and they are not all equal
    assert max(abs(count - 1000) for count in counts) < 4 * (1000 * 7 / 8) ** 0.5
    assert len(set(counts)) > 1
    assert [room(SEED, task) for task in range(9)] != [room(SEED + 1, task) for task in range(9)]


PAIR = ["cluster=disaggregated", "engine=sglang", "workload.requests=60", "slo=none"]


def simulated(*words: str) -> hf.Result:
    return hf.simulate(hf.compile(hf.compose([*PAIR, *words])))


def test_the_first_token_comes_when_the_kv_is_there() -> None:
    result = simulated("pipeline=chat", "network.node.efficiency=0.05")
    stages = result.stages
    prefill, decode = (stages.filter(stages["stage"] == name) for name in ("prefill", "decode"))
    assert decode["transfer_s"].max() > 0.01
    waited_s = result.requests["first_token_s"] - prefill["finish_s"] - decode["transfer_s"]
    assert waited_s.min() > -1e-9


def test_a_decode_client_that_looks_seldom_delays_first_tokens_by_half_an_interval() -> None:
    words = ["pipeline=llm", "workload.rate_per_s=4", "cluster.pools.decode.count=1"]
    often, seldom = (
        simulated(*words, f"cluster.pools.decode.scheduler_recv_interval={interval}") for interval in (1, 40)
    )
    step_s = seldom.requests["tpot_s"].mean()
    later_s = seldom.requests["ttft_s"].mean() - often.requests["ttft_s"].mean()
    # An interval waits from no step to 40; where nobody decodes, nothing waits
    assert 0.2 * 40 * step_s < later_s < 0.6 * 40 * step_s


def test_a_full_decode_side_leaves_the_memory_of_the_prefill_side_free() -> None:
    words = ["pipeline=llm", "cluster.pools.decode.kv_blocks=8000", "workload.rate_per_s=40"]
    result = simulated(*words)
    vllm = simulated(*words, "engine=vllm", "cluster.pools.decode.kv_blocks=500")
    peaks = [
        run.clients.filter(run.clients["pool"] == "prefill")["kv_peak_fraction"][0] for run in (result, vllm)
    ]
    assert peaks[0] < peaks[1] / 2
    queued = result.stages.filter(result.stages["stage"] == "prefill")["queue_s"]
    assert queued.max() > 1


def test_a_wait_for_memory_of_the_decode_side_is_told_of_its_pool() -> None:
    words = [*PAIR[:3], "pipeline=llm", "cluster.pools.decode.kv_blocks=8000", "workload.rate_per_s=40"]
    why = hf.simulate(hf.compile(hf.compose(words))).summary["why"]
    assert next(iter(why["causes"])) == "prefill.decode.kv_memory"
    assert why["resource"]["pool"] == "decode"


def test_requests_whose_users_gave_up_leave_no_memory_taken(tmp_path: Path) -> None:
    """Of forty at once most give up, wherever they are; a request that comes later is served as if alone."""

    def last_of(arrivals_s: list[float]) -> dict[str, Any]:
        path = tmp_path / f"{len(arrivals_s)}.csv"
        rows = [f"{at},300,200" for at in arrivals_s]
        path.write_text("\n".join(["arrival_s,input_tokens,output_tokens", *rows]), encoding="utf-8")
        words = ["pipeline=llm", "workload=trace", f"workload.path={path}", "workload.timeout_s=2"]
        words += ["cluster.pools.decode.kv_blocks=3000", "network.node.efficiency=0.01"]
        result = hf.simulate(hf.compile(hf.compose([*PAIR[:2], *words, "slo=none"])))
        gave_up.append(result.summary["requests"].get("timed_out", 0))
        return result.requests.row(-1, named=True)

    gave_up: list[int] = []
    after, alone = last_of([0.0] * 40 + [60.0]), last_of([60.0])
    assert gave_up[0] > 10
    assert gave_up[1] == 0
    assert after["status"] == "completed"
    assert [after[key] for key in ("ttft_s", "e2e_s")] == pytest.approx([alone["ttft_s"], alone["e2e_s"]])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["engine@cluster.pools.decode.engine=vllm"],
            r"pools\.decode\.engine: vllm cannot take over the KV of sglang",
        ),
        (["cluster.first_token=decode"], r"cluster\.first_token: decode; with the scheduler of sglang"),
        (["cluster.kv_transfer=layerwise"], r"cluster\.kv_transfer: layerwise is not modelled"),
        (["cluster.kv_handover_us=9"], r"cluster\.kv_handover_us: 9 is not modelled"),
        (
            ["cluster.pools.decode.prefix_cache=true"],
            r"pools\.decode\.prefix_cache: true, but decode clients of sglang",
        ),
        (["cluster.pools.prefill.serves=[prefill,guard]"], r"pools\.prefill\.serves: guard beside prefill"),
        (["cluster.pools.decode.failures={mtbf_s: 9, repair_s: 1}"], r"pools\.decode\.failures: it is not"),
        (
            ["cluster.pools.prefill.mixed_chunk=true"],
            r"mixed_chunk: True has no effect on a pool that only prefills",
        ),
        (["cluster.pools.decode.packing=lpm"], r"packing: 'lpm' has no effect on a pool that only decodes"),
        (
            ["cluster.pools.decode.chunked_prefill_size=512"],
            r"chunked_prefill_size: 512 has no effect on a pool that only decodes; expected auto",
        ),
        (["engine=vllm", "cluster.pools.decode.num_reserved_decode_tokens=9"], "it is one of engine=sglang"),
    ],
)
def test_what_is_not_modelled_is_refused_by_name(words: list[str], message: str) -> None:
    with pytest.raises(hf.HermesFlowError, match=message):
        hf.compile(hf.compose([*PAIR, "pipeline=chat", *words]))


def test_a_reserve_for_kv_that_never_comes_is_a_warning() -> None:
    words = ["pipeline=llm", "engine=sglang", "cluster.pools.llm.num_reserved_decode_tokens=9"]
    assert "num_reserved_decode_tokens has no effect" in str(hf.compile(hf.compose(words)).warnings)


def test_a_request_that_never_gets_memory_is_rejected() -> None:
    result = simulated("pipeline=llm", "cluster.pools.decode.kv_blocks=700")
    assert result.summary["requests"]["failed"] > 0
    assert "larger, with reserved tokens, than the KV cache" in str(result.summary["warnings"])
