"""Contexts that are looked up while the request has its place in the queue already, or before it joins it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from compiler.configs import problems_of
from kv_configs import CHAT, FAST, TOKEN_BYTES, config_of

import hermes_flow as hf
from hermes_flow.machine.run import run
from hermes_flow.pools.memory.schema import MemoryTier
from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.program import Program
from hermes_flow.recording.recording import Recording

MS = 1_000_000
ONE_AT_A_TIME = {"max_num_seqs": 1, "lookahead": 0}
RECALL: dict[str, Any] = {"context_tokens": 1000, "hits": {"slow": 1.0}, "when": "input_tokens > 100"}
TIERS = {"fast": FAST, "slow": MemoryTier(capacity_gb=1000, bandwidth_gb_s=10, lookup_us=200)}


def three(path: Path, overlap: bool, tiers: dict[str, MemoryTier] | None = None) -> list[float]:
    """When first tokens come, in ms: of one that is served already, one that recalls, and one that comes after it."""
    columns = {
        "arrival_ns": [0, 1 * MS, 2 * MS],
        "input_tokens": [100, 200, 50],
        "output_tokens": [100, 1, 1],
    }
    pl.DataFrame(columns).write_parquet(path / "three.parquet")
    words = ("workload=trace", f"workload.path={path}/three.parquet")
    config = config_of(RECALL | {"overlap": overlap}, *words, tiers=tiers or TIERS, llm=ONE_AT_A_TIME)
    return [1000 * at for at in hf.simulate(hf.compile(config)).requests["first_token_s"].to_list()]


def step_ms(tokens: int) -> float:
    return 1.0 + 0.01 * tokens


END = step_ms(100) + 99 * step_ms(1)  # of the first request: 101.99 ms
FETCHED = 1 + 0.2 + 1000 * TOKEN_BYTES / 10e6  # 14.3 ms


def test_who_joins_at_once_keeps_the_place_and_who_joins_later_is_behind(tmp_path: Path) -> None:
    assert three(tmp_path, overlap=True)[1:] == pytest.approx(
        [END + step_ms(200), END + step_ms(200) + step_ms(50)], abs=1e-5
    )
    assert three(tmp_path, overlap=False)[1:] == pytest.approx(
        [END + step_ms(50) + step_ms(200), END + step_ms(50)], abs=1e-5
    )


def test_nobody_waits_for_one_whose_context_is_not_there(tmp_path: Path) -> None:
    tiers = TIERS | {"slow": replace(TIERS["slow"], bandwidth_gb_s=1.0)}
    fetched = 1 + 0.2 + 1000 * TOKEN_BYTES / 1e6
    assert fetched > END + step_ms(50)
    for overlap in (False, True):
        assert three(tmp_path, overlap, tiers)[1:] == pytest.approx(
            [fetched + step_ms(200), END + step_ms(50)], abs=1e-5
        )


@pytest.mark.parametrize("bandwidth_gb_s", [2000, 8])
def test_the_engine_takes_a_request_in_while_its_context_is_read(bandwidth_gb_s: float) -> None:
    words = ["pipeline=kv_reuse", "cluster=kv_tiers", "workload=synthetic", "workload.requests=1"]
    tier = f"cluster.pools.store.tiers.dram.bandwidth_gb_s={bandwidth_gb_s}"
    recall = ("context_tokens=4000", "contexts=null", "skew=0", "hits={dram: 1.0}")
    words += [tier, *(f"pipeline.stages.recall.{setting}" for setting in recall)]
    with_overlap, without = (
        hf.simulate(hf.compile(hf.compose([*words, f"pipeline.stages.recall.overlap={overlap}"]))).requests
        for overlap in ("true", "false")
    )
    ingest, read = 8.0, 4000 * TOKEN_BYTES / bandwidth_gb_s / 1e6  # H100: 8 ms
    spared_ms = 1000 * (without["ttft_s"][0] - with_overlap["ttft_s"][0])
    assert spared_ms == pytest.approx(min(ingest, read), abs=1e-4)
    assert with_overlap["cached_tokens"][0] == without["cached_tokens"][0] == 4000


def naive_starts(program: Program, recording: Recording, ingest_ns: int, overlap: bool) -> list[int]:
    """When each prompt is begun, in ns, by a scheduler that looks at all that wait before every step."""
    llm = program.pools[program.ops[1].pool].client
    assert isinstance(llm, LLMClientSpec)
    recall, prefill = recording.ops[:2]
    prompt, output = program.ops[1].llm.prompt, program.ops[1].llm.output
    assert prompt is not None
    assert output is not None
    assert prefill.cached_tokens is not None
    waiting = []
    for request, arrival in enumerate(recording.arrival_ns.tolist()):
        asked = recall.client[request] >= 0
        ready = int(recall.finish_ns[request]) if asked else arrival
        since = (arrival if asked and overlap else ready) + ingest_ns
        seen = max(ready, since)
        chunk = int(prompt[request] - prefill.cached_tokens[request])
        waiting.append([seen, since, request, chunk])
    waiting.sort(key=lambda entry: (entry[1], entry[0], entry[2]))
    start, now = [-1] * len(waiting), 0
    running: dict[int, int] = {}  # tokens to come
    partial: list[list[int]] = []
    while waiting or running or partial:
        budget, tokens = llm.max_num_batched_tokens - len(running), len(running)
        finished: list[int] = []
        if not running and not partial and not any(entry[0] <= now for entry in waiting):
            now = min(entry[0] for entry in waiting)
        for entry in [*partial, *(entry for entry in waiting if entry[0] <= now)]:
            seats = llm.max_num_seqs - len(running) - len(partial) - len(finished)
            if not budget or (entry not in partial and seats < 1):
                break
            if entry not in partial:
                waiting.remove(entry)
                partial.append(entry)
                start[entry[2]] = now
            chunk = min(budget, entry[3])
            budget, tokens, entry[3] = budget - chunk, tokens + chunk, entry[3] - chunk
            if not entry[3]:
                partial.remove(entry)
                finished.append(entry[2])
        now += MS + 10_000 * tokens
        running = {request: left - 1 for request, left in running.items() if left > 1}
        running |= {request: int(output[request]) - 1 for request in finished if output[request] > 1}
    return start


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize(("ingest_ms", "seats"), [(0, 4), (3, 4), (12, 30)])
@pytest.mark.parametrize("seed", [0, 1])
def test_loaded_queues_are_served_as_a_naive_scheduler_does(
    seed: int, ingest_ms: int, seats: int, overlap: bool
) -> None:
    lengths = {"distribution": "uniform", "min": 1, "max": 60}
    recall = RECALL | {"context_tokens": lengths, "when": "input_tokens > 30", "overlap": overlap}
    program = hf.compile(
        config_of(
            recall | {"hits": {"fast": 0.5, "slow": 0.8}},
            tiers={"fast": replace(FAST, bandwidth_gb_s=1.0), "slow": replace(FAST, bandwidth_gb_s=0.2)},
            llm={"max_num_seqs": seats, "max_num_batched_tokens": 80, "lookahead": 0},
            stages=CHAT
            | {"show": {"kind": "detokenize", "after": ["decode"]}},  # which has the client plan in time
            requests=80,
            rate_per_s=90.0,
            input_tokens=lengths,
            output_tokens=lengths,
            seed=seed,
        )
    )
    pools = []
    for pool in program.pools:
        if isinstance(pool.client, LLMClientSpec):
            cost = replace(pool.client.cost, ingest_ns=ingest_ms * MS)
            pool = replace(pool, client=replace(pool.client, cost=cost))
        pools.append(pool)
    program = replace(program, pools=tuple(pools))
    recording = run(program)
    starts = recording.ops[1].start_ns
    np.testing.assert_array_equal(starts, naive_starts(program, recording, ingest_ms * MS, overlap))
    assert seats > 4 or (starts - recording.ops[1].ready_ns).max() > 20 * MS  # it was a queue


@pytest.mark.parametrize("packing", ["fcfs", "shortest_prompt", "earliest_deadline"])
@pytest.mark.parametrize("stages", [1, 2])
def test_every_request_is_served_under_any_order(packing: str, stages: int) -> None:
    config = config_of(
        {"context_tokens": 300, "contexts": 9, "overlap": True},
        llm={
            "packing": packing,
            "pipeline_parallel": stages,
            "kv_blocks": 68,
            "count": 2,
            "routing": "least_tokens",
        },
        requests=60,
        rate_per_s=80.0,
        input_tokens=200,
        output_tokens=60,
    )
    result = hf.simulate(hf.compile(config))
    assert result.summary["requests"]["completed"] == 60
    assert result.requests["preemptions"].sum() > 0
    assert (result.stages["queue_s"] >= 0).all()
    again = hf.simulate(hf.compile(config))
    assert result.stages.equals(again.stages)


def test_a_router_counts_who_has_a_place_but_no_context_yet() -> None:
    slow = {"slow": MemoryTier(capacity_gb=1000, bandwidth_gb_s=0.1, lookup_us=0)}
    recall = {"context_tokens": 1000, "hits": {"slow": 1.0}}
    clients = {}
    for overlap in (True, False):
        llm = {"count": 4, "routing": "least_requests"}
        sizes: dict[str, Any] = {"requests": 4, "rate_per_s": 1000.0, "input_tokens": 10, "output_tokens": 1}
        recording = run(hf.compile(config_of(recall | {"overlap": overlap}, tiers=slow, llm=llm, **sizes)))
        clients[overlap] = recording.ops[1].client.tolist()
    assert clients[True] == [0, 1, 2, 3]
    assert clients[False] != [0, 1, 2, 3] or recording.ops[1].ready_ns[3] == recording.ops[1].ready_ns[0]


def test_beside_its_store_a_prompt_joins_the_client_there() -> None:
    config = config_of(
        {"context_tokens": 100, "hits": {"slow": 1.0}, "overlap": True},
        llm={"count": 3},
        store={"count": 3, "beside": "llm"},
        requests=12,
        rate_per_s=100.0,
        input_tokens=20,
        output_tokens=3,
    )
    recording = run(hf.compile(config))
    assert (recording.ops[0].client == recording.ops[1].client).all()
    assert set(recording.ops[1].client.tolist()) == {0, 1, 2}


def test_a_prompt_that_waits_for_more_than_its_context_cannot_join_early() -> None:
    stages = {
        "look": {"kind": "tokenize"},
        **CHAT,
        "prefill": {"kind": "prefill", "after": ["recall", "look"]},
    }
    broken = config_of(
        {"context_tokens": 10, "hits": {"slow": 1.0}, "overlap": True}, stages=stages, requests=2
    )
    assert problems_of(broken) == [
        "pipeline.stages.recall.overlap: 'prefill' waits for 'recall' and 'look'; expected 'recall' alone to come "
        "directly before it"
    ]
