"""Prefill and decode on pools of their own: who computes what, on which hardware, and what moves between."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import polars as pl
import pytest
from cost import catalog
from oracles.llm_client import PLAIN, OraclePolicy
from oracles.prefill_decode_pair import (
    PairResult,
    PrefillDecodePair,
    on_a_narrow_link,
    pair_program,
    random_pair,
    simulate_pair,
)
from oracles.watched_client import simulate_given
from oracles.watched_run import watch
from pools.llm.deployments import (
    BATCHINGS,
    affine,
    check_invariants,
    composed,
    llm_client,
    one_request,
    random_deployment,
    with_cluster,
    with_pool,
    with_workload,
)
from tries import tries

import hermes_flow as hf
from hermes_flow.machine.run import run
from hermes_flow.metrics.itl import inter_token_gaps
from hermes_flow.metrics.tables.steps import steps_frame
from hermes_flow.program.prefixes import Prefixes
from hermes_flow.program.step_cost import StepCost
from hermes_flow.program.units import PS_PER_NS

KV_BYTES = 2 * 32 * 8 * 128 * 2  # llama3_8b: K and V of 32 layers, 8 heads of 128, in bf16
STAGES = pl.col("stage")


# What is exact: both clients, against naive ones that run one step at a time.


@pytest.mark.parametrize("batching", BATCHINGS)
@pytest.mark.parametrize("lookahead", [0, 1])
@pytest.mark.parametrize(
    ("prefill_policy", "decode_policy"),
    [
        (PLAIN, PLAIN),
        (OraclePolicy(prefix_cache=True), PLAIN),
        (OraclePolicy(prefix_cache=True), OraclePolicy(prefix_cache=True)),
        (OraclePolicy(prefix_cache=True), OraclePolicy(preemption="none", prefix_cache=True)),
        (
            OraclePolicy(prefix_cache=True),
            OraclePolicy(preemption="swap", swap_ps_per_block=1, prefix_cache=True),
        ),
        (PLAIN, OraclePolicy(preemption="none")),
        (PLAIN, OraclePolicy(preemption="swap", swap_ps_per_block=1)),
        (OraclePolicy(packing="shortest_prompt"), OraclePolicy(packing="least_work_left")),
    ],
    ids=["plain", "prefix", "both", "none-both", "swap-both", "none", "swap", "packing"],
)
def test_two_clients_in_a_row_equal_the_naive_ones(
    batching: str, lookahead: int, prefill_policy: OraclePolicy, decode_policy: OraclePolicy
) -> None:
    rng = random.Random(f"{batching}{lookahead}{prefill_policy}{decode_policy}")
    pairs = tries(8, of=20)
    preempting = hits = spared = 0
    for _ in range(pairs):
        pair = random_pair(rng, batching, lookahead, prefill_policy, decode_policy)
        expected = check_against_the_naive_ones(pair)
        assert set(expected.transfer_ns) <= {pair.latency_ns}
        preempting += any(one.preemptions for one in expected.decode.sequences)
        hits += any(one.cached_tokens for one in expected.prefill.sequences)
        spared += any(moved < pair.requests[index].prompt * 3 for index, moved in expected.moved.items())
    assert preempting > pairs // 6 or decode_policy.preemption == "none" or decode_policy.prefix_cache
    assert hits > pairs // 4 or not prefill_policy.prefix_cache
    assert spared > pairs // 4 if decode_policy.prefix_cache else spared == 0


@pytest.mark.parametrize("batching", BATCHINGS)
@pytest.mark.parametrize(("prefix_cache", "both"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("layers", [None, 1, 2, 80], ids=lambda layers: f"layers-{layers}")
def test_two_clients_on_a_narrow_link_equal_the_naive_ones(
    batching: str, prefix_cache: bool, both: bool, layers: int | None
) -> None:
    rng = random.Random(f"{batching}{prefix_cache}{layers}")
    pairs = tries(9, of=24)
    waiting = layerwise = 0
    for _ in range(pairs):
        policy = OraclePolicy(prefix_cache=prefix_cache)
        pair = random_pair(rng, batching, rng.choice([0, 1]), policy, policy if both else PLAIN)
        pair = on_a_narrow_link(pair, layers, rng)
        expected = check_against_the_naive_ones(pair)
        alone_ns = [expected.moved[request] / pair.bytes_per_ns for request in expected.decoded]
        extra_ns = [
            transfer - pair.latency_ns - alone
            for transfer, alone in zip(expected.transfer_ns, alone_ns, strict=True)
        ]
        waiting += any(extra > 2 for extra in extra_ns)
        layerwise += any(extra < -2 for extra in extra_ns)
    assert waiting > pairs // 4  # for other KV
    assert layerwise > 0 or layers in (None, 1)
    assert layerwise == 0 or layers not in (None, 1)


@pytest.mark.parametrize("batching", BATCHINGS)
@pytest.mark.parametrize("first_at_decode", [False, True], ids=["prefill", "decode"])
@pytest.mark.parametrize("preemption", ["recompute", "swap", "none"])
def test_whoever_emits_first_tokens_and_whatever_it_takes_to_hand_kv_over(
    batching: str, first_at_decode: bool, preemption: str
) -> None:
    rng = random.Random(f"{batching}{first_at_decode}{preemption}")
    single = preempting = 0
    for _ in range(12):
        handover_ps = rng.choice([0, 1, 700, 10**6, 10**8])
        sending = OraclePolicy(export_ps=handover_ps)
        receiving = OraclePolicy(preemption=preemption, swap_ps_per_block=1, import_ps=handover_ps)
        pair = random_pair(rng, batching, rng.choice([0, 1]), sending, receiving)
        pair = on_a_narrow_link(replace(pair, first_at_decode=first_at_decode), rng.choice([None, 4]), rng)
        expected = check_against_the_naive_ones(pair)
        single += any(pair.requests[request].output == 1 for request in expected.decoded)
        preempting += any(one.preemptions for one in expected.decode.sequences)
    assert (single > 2) if first_at_decode else (single == 0)
    assert (preempting == 0) if preemption == "none" else (preempting > 1)


@pytest.mark.parametrize("batching", BATCHINGS)
@pytest.mark.parametrize("lookahead", [0, 1])
@pytest.mark.parametrize("first_at_decode", [False, True], ids=["prefill", "decode"])
def test_clients_that_look_for_kv_once_a_step_equal_the_naive_ones(
    batching: str, lookahead: int, first_at_decode: bool
) -> None:
    rng = random.Random(f"polls{batching}{lookahead}{first_at_decode}")
    later = 0
    for _ in range(tries(12, of=60)):
        cached = OraclePolicy(prefix_cache=rng.random() < 0.3)
        pair = random_pair(rng, batching, lookahead, cached, OraclePolicy(import_ps=rng.choice([0, 700])))
        pair = on_a_narrow_link(replace(pair, first_at_decode=first_at_decode), rng.choice([None, 4]), rng)
        at_once = check_against_the_naive_ones(pair)
        polled = check_against_the_naive_ones(replace(pair, decode=replace(pair.decode, polls_kv=True)))
        ends = [sum(one.finish_ps for one in run.decode.sequences) for run in (at_once, polled)]
        later += ends[1] > ends[0]
    assert later > 0


def test_both_clients_may_limit_the_tokens_of_one_prompt_in_a_step() -> None:
    rng = random.Random(22)
    limited = 0
    for _ in range(tries(12, of=100)):
        cached = OraclePolicy(prefix_cache=rng.random() < 0.5)
        pair = random_pair(rng, "chunked", rng.choice([0, 1]), cached, cached)
        most = rng.randint(1, 12)
        limits = {"batching": "chunked", "longest_chunk": most}
        pair = replace(pair, prefill=replace(pair.prefill, **limits), decode=replace(pair.decode, **limits))
        check_against_the_naive_ones(on_a_narrow_link(pair, None, rng))
        limited += any(request.prompt > most for request in pair.requests)
    assert limited > 4


def check_against_the_naive_ones(pair: PrefillDecodePair) -> PairResult:
    """Run a pair both ways, compare instant by instant, and return what the naive clients did."""
    expected = simulate_pair(pair)
    recording = run(pair_program(pair))
    first, second = recording.ops
    assert second.preemptions is not None
    assert second.transfer_ns is not None
    assert second.first_ns is not None
    prefill, decode, requests = expected.prefill, expected.decode, expected.decoded
    np.testing.assert_array_equal(first.start_ns, in_ns([one.start_ps for one in prefill.sequences]))
    np.testing.assert_array_equal(first.finish_ns, in_ns([one.finish_ps for one in prefill.sequences]))
    decoded = [decode.sequences[index] for index in requests]
    emitting = decoded if pair.first_at_decode else [prefill.sequences[index] for index in requests]
    np.testing.assert_array_equal(second.first_ns[requests], in_ns([one.first_ps for one in emitting]))
    assert second.transfer_ns[requests].tolist() == expected.transfer_ns
    assert second.bytes is not None
    assert dict(zip(requests, second.bytes[requests].tolist(), strict=True)) == expected.moved
    np.testing.assert_array_equal(second.finish_ns[requests], in_ns([one.finish_ps for one in decoded]))
    assert second.preemptions[requests].tolist() == [one.preemptions for one in decoded]
    if pair.decode.batching != "continuous":  # there, who has entered waits while prompts are computed again
        np.testing.assert_array_equal(second.start_ns[requests], in_ns([one.start_ps for one in decoded]))
    return expected


def in_ns(times_ps: list[int]) -> Any:
    return np.array(times_ps, dtype=np.int64) // PS_PER_NS


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("kv_transfer", ["full", "layerwise"])
def test_every_client_equals_the_naive_one_given_when_its_requests_and_its_kv_came(
    kv_transfer: Literal["full", "layerwise"], closed: bool
) -> None:
    rng = random.Random(closed)
    preempting = 0
    for _ in range(20):
        program = hf.compile(random_deployment(rng, closed, kv_transfer))
        watched = watch(program)
        check_invariants(watched)
        for pool in (0, 1):
            for index in range(program.pools[pool].count):
                expected = simulate_given(watched, pool, index)
                finish_ps = llm_client(watched, pool, index).tasks.finish_ps
                assert [finish_ps[entry.task] for entry in watched.given(pool, index)] == expected.finish_ps
                preempting += any(expected.preemptions)
    assert preempting > 10


# Whose hardware.


@pytest.mark.parametrize(("prefill", "decode"), [("h100_sxm", "l40s"), ("l40s", "h100_sxm")])
@pytest.mark.parametrize(("prefill_devices", "decode_devices"), [(1, 1), (2, 1), (1, 4)])
def test_steps_are_timed_on_the_hardware_they_run_on(
    prefill: str, decode: str, prefill_devices: int, decode_devices: int
) -> None:
    config = composed("model=llama3_8b", "cost=roofline", "workload.rate_per_s=20", "workload.requests=40")
    config = with_workload(config, input_tokens=700, output_tokens=30)
    sides = {"prefill": (prefill, prefill_devices), "decode": (decode, decode_devices)}
    for name, (hardware, devices) in sides.items():
        config = with_pool(
            config,
            name,
            hardware=catalog.hardware(hardware),
            tensor_parallel=devices,
            max_num_seqs=64,
            max_num_batched_tokens=1024,
        )
    result = hf.simulate(hf.compile(config))
    clients = {f"{result.recording.program.pools[c.pool].name}": c for c in result.recording.clients}
    for name, (hardware, devices) in sides.items():
        model = catalog.model("llama3_8b")
        cost = catalog.roofline(model, catalog.hardware(hardware), devices, 1024, 64)
        segments = clients[name].segments
        assert segments is not None
        decoding, prefilling = check_durations(segments.tolist(), cost)
        assert (decoding, prefilling) == ((0, 40 * 700) if name == "prefill" else (40 * 29, 0))
    assert (result.clients["hardware"].to_list()[:2]) == [prefill, decode]


def check_durations(segments: list[list[int]], cost: StepCost) -> tuple[int, int]:
    """Check every step against ``cost``; return the tokens that were decoded and prefilled."""
    decoded = prefilled = 0
    for start, end, steps, decodes, context, prefill_tokens, _ in segments:
        if not prefill_tokens:
            lengths = [cost.step_ps([], decodes, context + i * decodes) for i in range(steps)]
            assert end - start == sum(lengths)
        else:  # prompts of 700 tokens in steps of 1024: at most two pieces of them
            assert (steps, decodes) == (1, 0)
            assert end - start in {cost.step_ps(pieces, 0, 0) for pieces in pieces_of(prefill_tokens)}
        decoded += steps * decodes
        prefilled += prefill_tokens
    return decoded, prefilled


def pieces_of(tokens: int) -> list[list[tuple[int, int]]]:
    """Return the ways to make a step of ``tokens``: pieces (chunk, context) of prompts of 700 tokens."""
    ways = []
    for context in range(700):
        left = tokens - (700 - context)
        if left < 0:
            ways.append([(tokens, context)])
            continue
        whole, rest = divmod(left, 700)
        pieces = [(700 - context, context)] + [(700, 0)] * whole
        ways.append([*pieces, (rest, 0)] if rest else pieces)
    return ways


def test_the_price_is_that_of_both_pools() -> None:
    config = one_request(affine())
    hardware = replace(catalog.hardware("h100_sxm"), usd_per_hour=2.0)
    config = with_pool(config, "prefill", hardware=hardware, tensor_parallel=2, count=3)
    config = with_pool(config, "decode", hardware=replace(hardware, usd_per_hour=1.0), tensor_parallel=4)
    program = hf.compile(config)
    assert [pool.usd_per_hour for pool in program.pools[:2]] == [4.0, 4.0]


# One request, by hand.


def test_one_request_is_prefilled_moved_and_decoded() -> None:
    config = one_request(affine("network.node.latency_us=7"))
    result = hf.simulate(hf.compile(config))
    arrival_ns = int(result.recording.arrival_ns[0])
    first_ns = arrival_ns + 200_000  # 100 µs and 1 µs for each of 100 tokens
    moved_ns = round(100 * KV_BYTES / 450) + 7_000
    assert result.recording.ops[1].ready_ns.tolist() == [first_ns]
    assert result.recording.ops[1].start_ns.tolist() == [first_ns + moved_ns]
    assert result.recording.finish_ns.tolist() == [first_ns + moved_ns + 4 * 101_000]
    row = result.requests.row(0, named=True)
    assert row["ttft_s"] == pytest.approx(200e-6)
    assert row["tpot_s"] == pytest.approx((moved_ns + 4 * 101_000) / 4 / 1e9)
    assert row["output_tokens"] == 5
    stage = result.stages.row(by_predicate=STAGES == "decode", named=True)
    assert stage["bytes"] == 100 * KV_BYTES
    assert stage["transfer_s"] == pytest.approx(moved_ns / 1e9)
    assert stage["queue_s"] == pytest.approx(0.0, abs=1e-12)
    assert stage["service_s"] == pytest.approx(4 * 101e-6)
    assert (stage["pool"], stage["client"], stage["tokens"]) == ("decode", "decode/0", 5)


def test_the_decode_client_may_emit_the_first_token() -> None:
    """The transfer is over; the last of 100 tokens takes 100 µs and 1 µs, and so does each token after it."""
    config = with_cluster(one_request(affine("network.node.latency_us=7")), first_token="decode")
    result = hf.simulate(hf.compile(config))
    moved_ns = round(100 * KV_BYTES / 450) + 7_000
    row = result.requests.row(0, named=True)
    assert row["ttft_s"] == pytest.approx((200_000 + moved_ns + 101_000) / 1e9)
    assert row["tpot_s"] == pytest.approx(101e-6)
    assert (row["cached_tokens"], row["output_tokens"]) == (0, 5)
    assert inter_token_gaps(result.recording).quantiles([0.0, 1.0]) == [101_000_000] * 2
    short = with_workload(config, output_tokens=1)
    row = hf.simulate(hf.compile(short)).requests.row(0, named=True)
    assert row["ttft_s"] == row["e2e_s"] == pytest.approx((200_000 + moved_ns + 101_000) / 1e9)


def test_handing_kv_over_takes_time_of_both_clients() -> None:
    config = with_cluster(one_request(affine()), kv_handover_us=3000.0)
    result = hf.simulate(hf.compile(config))
    moved_ns = round(100 * KV_BYTES / 450)
    row = result.requests.row(0, named=True)
    assert row["ttft_s"] == pytest.approx(3.2e-3)
    assert row["e2e_s"] == pytest.approx(3.2e-3 + moved_ns / 1e9 + 3e-3 + 4 * 101e-6)
    said = [
        pool.name for pool in result.program.pools if "3,000 µs for handing over a prompt's KV" in pool.notes
    ]
    assert said == ["prefill", "decode"]


def test_the_first_gap_between_tokens_holds_the_transfer() -> None:
    result = hf.simulate(hf.compile(one_request(affine("network.node.latency_us=7"))))
    moved_ns = round(100 * KV_BYTES / 450) + 7_000
    gaps = inter_token_gaps(result.recording)
    assert gaps.total == 4
    assert gaps.quantiles([0.75, 1.0]) == [101_000_000, (moved_ns + 101_000) * PS_PER_NS]


def test_the_kv_of_the_whole_prompt_moves_whatever_the_parallelism() -> None:
    for devices in (1, 2, 8):
        config = with_pool(affine(), "prefill", tensor_parallel=devices, count=2)
        config = with_workload(
            config, requests=30, input_tokens={"distribution": "choice", "values": [1, 99]}
        )
        result = hf.simulate(hf.compile(with_pool(config, "decode", count=3)))
        moved = result.stages.filter(STAGES == "decode").sort("request")["bytes"].to_list()
        assert moved == (result.requests["input_tokens"] * KV_BYTES).to_list()
        assert result.stages.filter(STAGES == "prefill")["bytes"].sum() == 0
        assert (result.stages["queue_s"] >= 0).all()


def test_a_client_of_several_devices_has_the_links_of_all_of_them() -> None:
    expected = {1: 450, 2: 900, 8: 3600}
    for devices, bytes_per_ns in expected.items():
        config = affine("network.devices_per_node=64")
        config = with_pool(config, "prefill", tensor_parallel=devices)
        config = one_request(with_pool(config, "decode", tensor_parallel=devices), prompt=4000)
        record = run(hf.compile(config)).ops[1]
        assert record.transfer_ns is not None
        assert record.transfer_ns.tolist() == [round(4000 * KV_BYTES / bytes_per_ns)]


# Who does not take part, and what happens under pressure.


def test_a_request_of_one_token_never_moves() -> None:
    config = with_workload(
        affine(), requests=60, output_tokens={"distribution": "choice", "values": [1, 2]}, input_tokens=50
    )
    watched = watch(hf.compile(config))
    check_invariants(watched)
    result = hf.simulate(watched.program)
    short = result.requests.filter(pl.col("output_tokens") == 1)
    assert 0 < len(short) < 60
    assert (short["first_token_s"] == short["finish_s"]).all()
    assert short["tpot_s"].null_count() == len(short)
    moved = result.stages.filter(STAGES == "decode")
    assert set(moved["request"]) == set(result.requests.filter(pl.col("output_tokens") == 2)["request"])
    assert llm_client(watched, 1).served == 60 - len(short)
    assert sum(link.bytes for link in result.recording.links) == 2 * len(moved) * 50 * KV_BYTES


def test_ttft_is_the_prefill_whatever_the_decode_pool_does() -> None:
    config = with_workload(affine(), requests=50, rate_per_s=3000.0, input_tokens=80, output_tokens=40)
    calm = hf.simulate(hf.compile(config)).requests
    slow = hf.simulate(hf.compile(with_pool(config, "decode", max_num_seqs=1, kv_blocks=8))).requests
    assert (calm["ttft_s"] == slow["ttft_s"]).all()
    assert (calm["finish_s"] < slow["finish_s"]).any()
    assert (calm["first_token_s"] < calm["finish_s"]).all()


@pytest.mark.parametrize("batching", BATCHINGS)
def test_what_the_decode_side_preempts_it_computes_again_itself(batching: str) -> None:
    config = with_workload(affine(), requests=20, rate_per_s=50000.0, input_tokens=30, output_tokens=60)
    config = with_pool(config, "decode", kv_blocks=14, block_size=16, batching=batching)
    watched = watch(hf.compile(config))
    check_invariants(watched)
    result = hf.simulate(watched.program)
    assert result.requests["preemptions"].sum() > 0
    prefill, decode = (client.segments for client in result.recording.clients[:2])
    assert prefill is not None
    assert decode is not None
    assert prefill[:, 5].sum() == 20 * 30
    assert decode[:, 5].sum() >= 30 * result.requests["preemptions"].sum()
    moved = result.stages.filter(STAGES == "decode")["bytes"]
    assert moved.to_list() == [30 * KV_BYTES] * 20  # once, however often it is preempted


def test_a_prefix_cache_spares_computing_and_not_moving() -> None:
    config = with_workload(affine(), requests=6, rate_per_s=100.0, input_tokens=64, output_tokens=3)
    cached = with_pool(config, "prefill", prefix_cache=True)
    program = hf.compile(cached)
    prefixes = Prefixes(np.tile(np.arange(3), 6), np.arange(0, 19, 3), 16)  # 48 of 64 tokens are common
    program = replace(program, requests=replace(program.requests, prefixes=prefixes))
    result = hf.simulate(program)
    plain = hf.simulate(hf.compile(config))
    assert result.requests["cached_tokens"].to_list() == [0, *[48] * 5]
    gained = (plain.requests["ttft_s"] - result.requests["ttft_s"]).to_list()
    assert gained == pytest.approx([0, *[48e-6] * 5])
    assert result.stages.filter(STAGES == "decode")["bytes"].to_list() == [64 * KV_BYTES] * 6


@pytest.mark.parametrize("kv_transfer", ["full", "layerwise"])
def test_a_closed_loop_keeps_its_number_of_requests_in_the_system(kv_transfer: str) -> None:
    arrivals = {"process": "closed_loop", "concurrency": 4, "think_time_s": 0.0}
    config = with_workload(
        affine(),
        requests=40,
        rate_per_s=None,
        arrivals=arrivals,
        output_tokens={"distribution": "choice", "values": [1, 9, 30]},
        input_tokens=50,
    )
    watched = watch(hf.compile(with_cluster(config, kv_transfer=kv_transfer)))
    check_invariants(watched)
    arrival, finish = watched.recording.arrival_ns, watched.recording.finish_ns
    for now in np.sort(arrival)[4:-4]:
        assert (arrival <= now).sum() - (finish <= now).sum() == 4


def test_a_run_in_which_all_requests_have_one_token_needs_no_decode_client() -> None:
    config = with_workload(affine(), requests=10, output_tokens=1)
    result = hf.simulate(hf.compile(config))
    assert set(result.stages["stage"]) == {"prefill"}
    assert result.summary["requests"]["completed"] == 10
    assert result.recording.links == ()
    assert steps_frame(result.recording)["client"].unique().to_list() == ["prefill/0"]


def test_requests_beyond_the_decode_side_are_rejected_before_they_are_prefilled() -> None:
    config = with_workload(
        affine(), requests=30, input_tokens=20, output_tokens={"distribution": "choice", "values": [5, 50]}
    )
    watched = watch(hf.compile(with_pool(config, "decode", kv_blocks=2)))
    long = set(np.flatnonzero(watched.program.requests.output_tokens == 50).tolist())
    assert set(watched.program.rejected) == long
    assert len(watched.in_pool(0)) == len(watched.in_pool(1)) == 30 - len(long)


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("lookahead", [0, 1])
def test_kv_joins_one_step_later_and_with_lookahead_two_where_clients_look_once_a_step(
    ranks: int, lookahead: int
) -> None:
    """The first request decodes alone in steps of 101 µs, and the KV of the second arrives in one of them."""
    starts = []
    for notice in ("at_once", "each_step"):
        config = affine(
            *("model=mixtral_8x7b", "model.precision.weights=fp8", "hardware=h200_sxm"),
            *("workload.requests=2", "workload.arrivals=uniform", "workload.rate_per_s=1000"),
            *("workload.input_tokens=100", "workload.output_tokens=40"),
            f"cluster.kv_notice={notice}",
            f"cluster.pools.decode.data_parallel={ranks}",
            f"cluster.pools.decode.lookahead={lookahead}",
        )
        result = hf.simulate(hf.compile(config))
        starts.append(result.stages.filter(STAGES == "decode").sort("request")["start_s"].to_list())
    assert starts[0][0] == starts[1][0]  # an idle client notices KV at once
    assert starts[1][1] - starts[0][1] == pytest.approx((1 + lookahead) * 101e-6, rel=1e-6)
