"""Ranks of data-parallel attention with the schedulers of SGLang and TensorRT-LLM: equal to naive simulators."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from oracles.ranks_of_schedulers import SGLangRanks, TensorRTRanks
from oracles.sglang_cases import oracle_of
from pools.llm.test_sglang_client import random_case
from pools.llm.test_tensorrt_llm_client import EACH_US, FIXED_US, PAST_US, system
from pools.llm.test_tensorrt_llm_client import compiled as compiled_tensorrt
from tries import tries
from validation.test_sglang_schedules import configure, write_trace

import hermes_flow as hf
from hermes_flow.errors import CompileError, HermesFlowError

MIXTURE = ["model=mixtral_8x7b", "hardware=h200_sxm"]
KEY = "cluster.pools.llm"
REPORT_US = 100_000  # source: load_watch_interval of SGLang's server arguments


def ns(seconds: Any) -> list[int]:
    return [round(value * 1e9) for value in seconds]


@cache
def template() -> hf.Config:
    words = ["engine=sglang", "pipeline=llm", "slo=none", *MIXTURE, "workload=trace", "workload.path=-"]
    words += ["cost=affine", "cost.fixed_us=1", f"{KEY}.kv_blocks=100", "output.steps=true"]
    return hf.compose([*words, f"{KEY}.data_parallel=2"])


def configured(case: dict[str, Any], path: Path, count: int, routing: str | None) -> hf.Config:
    """Return the config of a case on so many ranks, without composing it anew."""
    config, given = template(), configure(case, path)
    mixture = config.cluster.pools["llm"]
    pool = replace(
        given.cluster.pools["llm"],  # type: ignore[type-var]
        model=mixture.model,
        hardware=mixture.hardware,
        data_parallel=count,
        rank_routing=routing,
    )
    pools = config.cluster.pools | {"llm": pool}
    cluster = replace(config.cluster, pools=pools)
    return replace(config, cluster=cluster, workload=given.workload, cost=given.cost)


@pytest.mark.parametrize("seed", range(tries(20, of=1500)))
def test_ranks_of_sglang_are_naive_schedulers_whose_steps_end_together(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    case = random_case(rng)
    case["cost"] = {"fixed": 1000, "per_token": rng.choice([0, 30]), "per_context": rng.choice([0, 2])}
    count = rng.choice([2, 2, 3, 4])
    lone = oracle_of(case)
    # The engine takes 0.3 of the factor.
    lone.s.schedule_conservativeness *= 0.3
    by_queue = rng.random() < 0.5
    interval = REPORT_US if by_queue else 0
    oracle = SGLangRanks(lone.s, lone.requests, count, interval)
    oracle.run()
    if any(request.finish < 0 for request in oracle.requests):
        pytest.skip("the engine would wait for ever")
    path = tmp_path / "trace.parquet"
    write_trace(case, path)
    routing = "shortest_queue" if by_queue else None
    result = hf.simulate(hf.compile(configured(case, path, count, routing)))
    by_number = sorted(oracle.requests, key=lambda one: one.number)
    assert ns(result.requests["first_token_s"]) == [1000 * one.first for one in by_number]
    assert ns(result.requests["finish_s"]) == [1000 * one.finish for one in by_number]
    assert result.requests["cached_tokens"].to_list() == [one.cached or 0 for one in by_number]
    assert ns(result.steps["start_s"]) == [1000 * start for start, _, _ in oracle.steps]
    assert ns(result.steps["end_s"]) == [1000 * (start + length) for start, length, _ in oracle.steps]
    tokens = result.steps["prefill_tokens"] + result.steps["decodes"]
    assert tokens.to_list() == [sum(each) for _, _, each in oracle.steps]


@pytest.mark.parametrize("seed", range(tries(6, of=900)))
def test_ranks_of_tensorrt_llm_are_naive_schedulers_with_one_queue(seed: int, tmp_path: Path) -> None:
    check_ranks_of_tensorrt_llm(seed, None, tmp_path)


def test_ranks_of_tensorrt_llm_that_wait_for_prompts_of_all_are_naive_schedulers_too(tmp_path: Path) -> None:
    waits = 0
    for seed in range(tries(5, of=900)):
        rng = random.Random(seed)
        balance = rng.choice([(0, 2), (1, 2), (3, 0), (3, 2), (20, 0), (20, 2)])
        waits += check_ranks_of_tensorrt_llm(seed, balance, tmp_path)
    assert waits > 1


def check_ranks_of_tensorrt_llm(seed: int, balance: tuple[int, int] | None, tmp_path: Path) -> int:
    """Compare a random system with the naive ranks; return in how many decisions prompts waited."""
    from oracles.tensorrt_llm_scheduler import Request, Settings

    pool, rows = system(seed)
    count = 2 + seed % 3
    unit = None if pool["context_chunking_policy"] == "none" else pool["block_size"]
    capacity = pool["kv_blocks"] * pool["block_size"]
    requests = []
    for number, row in enumerate(rows):
        prompt, output = row["input_tokens"], row["output_tokens"]
        names = row.get("prefix_hashes", [])[: prompt // pool["block_size"]]
        whole = (prompt + output) // pool["block_size"]
        own = [-(1000 * number + k + 1) for k in range(len(names), whole)] if pool["prefix_cache"] else []
        limit = min(row["output_limit"], capacity - prompt)
        requests.append(Request(row["arrival_us"] * 1000, prompt, output, limit, names + own))
    settings = Settings(
        *(pool["kv_blocks"], pool["block_size"], pool["max_num_seqs"], pool["max_num_batched_tokens"]),
        *(pool["capacity_scheduler_policy"], pool["context_chunking_policy"], unit),
        *(bool(pool["lookahead"]), FIXED_US * 1000, EACH_US * 1000, PAST_US * 1000),
    )
    oracle = TensorRTRanks(settings, requests, count, balance)
    oracle.run()
    pool["data_parallel"] = count
    if balance is not None:
        keys = dict(zip(("timeout_iters", "batching_wait_iters"), balance, strict=True))
        pool |= {f"attention_dp_config.{key}": value for key, value in keys.items()}
        pool["attention_dp_config.enable_balance"] = True
    program = compiled_tensorrt(tmp_path, pool, rows, MIXTURE)
    if oracle.stuck:
        with pytest.raises(
            HermesFlowError, match=r"would wait for each other for ever: .*cluster\.pools\.llm\.kv_blocks"
        ):
            hf.simulate(program)
        return oracle.waits
    found = hf.simulate(program).requests
    assert ns(found["first_token_s"]) == [one.first for one in requests]
    assert ns(found["finish_s"]) == [one.finish for one in requests]
    assert found["preemptions"].to_list() == [one.pauses for one in requests]
    if pool["prefix_cache"]:
        assert found["cached_tokens"].to_list() == [one.found for one in requests]
    return oracle.waits


def burst(engine: str, *words: str) -> hf.Result:
    """Forty requests at once, on steps that all take 1 ms."""
    lengths = "{distribution: uniform, min: 5, max: 400}"
    return hf.simulate(
        hf.compile(
            hf.compose(
                [
                    *(f"engine={engine}", "pipeline=llm", *MIXTURE, "slo=none", "workload=synthetic"),
                    *("workload.requests=40", "workload.arrivals={process: closed_loop, concurrency: 40}"),
                    *(f"workload.input_tokens={lengths}", f"workload.output_tokens={lengths}"),
                    *(
                        "cost={kind: affine, fixed_us: 1000}",
                        f"{KEY}.max_num_seqs=4",
                        f"{KEY}.kv_blocks=4000",
                    ),
                    *words,
                ]
            )
        )
    )


def test_where_all_steps_take_equally_long_ranks_of_sglang_are_clients_of_their_own() -> None:
    """Nobody waits for a slower rank, so that two ranks serve as two clients do, by turns."""
    own = f"{KEY}.schedule_conservativeness"
    ranks = burst("sglang", f"{KEY}.data_parallel=2", f"{own}=1.0")
    clients = burst("sglang", f"{KEY}.count=2", "cluster.routing=round_robin", f"{own}=0.3")
    assert ranks.requests["finish_s"].equals(clients.requests["finish_s"])
    assert ranks.requests["first_token_s"].equals(clients.requests["first_token_s"])


def test_sglang_divides_its_default_chunk_among_the_ranks() -> None:
    words = ["pipeline=llm", "engine=sglang", *MIXTURE, f"{KEY}.data_parallel=4", "workload.requests=2"]
    (pool,) = (one for one in hf.compile(hf.compose(words)).pools if one.name == "llm")
    # source of 8,192: SGLang's default for GPUs below 160 GiB; an H200 has 141 GB
    assert "prompts cut to 2,048 tokens a step" in pool.notes[0]
    assert "on each rank" in pool.notes[0]


@pytest.mark.parametrize(
    ("engine", "words", "expected"),
    [
        (
            "sglang",
            ["rank_routing=least_requests"],
            "shortest_queue, follow_bootstrap_room or null",
        ),
        ("vllm", ["rank_routing=shortest_queue"], "shortest_queue is SGLang's rule; expected least_requests"),
        ("tensorrt_llm", ["rank_routing=round_robin"], "share one queue; expected null"),
        ("sglang", ["attention_dp_config.enable_balance=true"], "the pool has no ranks of TensorRT-LLM"),
        ("tensorrt_llm", ["attention_dp_config.timeout_iters=5"], "no effect unless enable_balance is true"),
    ],
)
def test_a_rule_of_another_front_end_is_refused(engine: str, words: list[str], expected: str) -> None:
    with pytest.raises(CompileError, match=expected):
        hf.compile(
            hf.compose(
                [
                    *("pipeline=llm", f"engine={engine}", *MIXTURE, f"{KEY}.data_parallel=2"),
                    *(f"{KEY}.{word}" for word in words),
                ]
            )
        )


@pytest.mark.parametrize(
    ("engine", "words", "expected"),
    [
        ("sglang", ["decode.rank_routing=follow_bootstrap_room"], "only prompts of SGLang whose KV another"),
        ("vllm", ["prefill.rank_routing=follow_bootstrap_room"], "follow_bootstrap_room is SGLang's rule"),
        (
            "tensorrt_llm",
            ["prefill.attention_dp_config.enable_balance=true"],
            r"prefill\.attention_dp_config\.enable_balance: true has no effect where prefill and decode have",
        ),
    ],
)
def test_what_ranks_with_pools_of_their_own_cannot_have_is_refused(
    engine: str, words: list[str], expected: str
) -> None:
    with pytest.raises(HermesFlowError, match=expected):
        hf.compile(hf.compose([*apart(engine), *(f"cluster.pools.{word}" for word in words)]))


def apart(engine: str) -> list[str]:
    """Prefill and decode on clients of two ranks each."""
    ranks = [f"cluster.pools.{pool}.data_parallel=2" for pool in ("prefill", "decode")]
    return ["pipeline=llm", "cluster=disaggregated", f"engine={engine}", *MIXTURE, *ranks, "slo=none"]


@pytest.mark.parametrize(
    ("engine", "rule"), [("sglang", "follow bootstrap room"), ("tensorrt_llm", "shared queue")]
)
def test_kv_moves_between_ranks_of_these_engines(engine: str, rule: str) -> None:
    words = [*apart(engine), "workload.requests=40", "workload.rate_per_s=20"]
    assert rule in one_line(hf.compose(words))
    result = hf.simulate(hf.compile(hf.compose(words)))
    assert result.requests["status"].to_list() == ["completed"] * 40
    assert result.stages.filter(result.stages["stage"] == "decode")["transfer_s"].min() > 0


def test_random_rooms_wait_longer_than_turns() -> None:
    """Prompts of one length at once: in turns all ranks have as many, by rooms some have more and the others idle."""
    words = [*apart("sglang"), "workload=synthetic", "workload.requests=64", "workload.input_tokens=4000"]
    words += ["workload.arrivals={process: closed_loop, concurrency: 64}", "workload.output_tokens=2"]
    words += ["cluster.pools.prefill.data_parallel=8"]
    turns, rooms = (
        hf.simulate(hf.compile(hf.compose([*words, f"cluster.pools.prefill.rank_routing={rule}"])))
        for rule in ("round_robin", "null")
    )
    assert rooms.requests["ttft_s"].max() > 1.2 * turns.requests["ttft_s"].max()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            [
                f"{KEY}.data_parallel=2",
                f"{KEY}.attention_dp_config={{enable_balance: true, timeout_iters: 1, batching_wait_iters: 0}}",
            ],
            "enable_balance: true has no effect with timeout_iters=1 and batching_wait_iters=0",
        ),
        (
            [
                f"{KEY}.max_num_seqs=1",
                f"{KEY}.batch_wait_timeout_iters=20",
                f"{KEY}.batch_wait_max_tokens_ratio=0.9",
            ],
            "batch_wait_timeout_iters: 20 has no effect with max_num_seqs=1",
        ),
        ([f"{KEY}.chunked_prefill_size=null"], "chunked_prefill_size: null, but the scheduler"),
    ],
)
def test_waits_that_never_happen_are_refused_in_words_of_a_configuration(
    words: list[str], message: str
) -> None:
    with pytest.raises(CompileError, match=message):
        hf.compile(hf.compose(["engine=tensorrt_llm", *MIXTURE, "workload.requests=2", *words]))


def test_a_compiled_program_says_what_ranks_and_held_contexts_change() -> None:
    ranks = one_line(hf.compose(["engine=sglang", *MIXTURE, "workload.requests=2", f"{KEY}.data_parallel=2"]))
    assert "schedule_conservativeness 0.3 on ranks" in ranks
    assert "mixed_chunk=false" in ranks
    held = one_line(hf.compose(["pipeline=kv_reuse", "workload.requests=2", f"{KEY}.retrieved_kv=held"]))
    assert "gets its blocks before its context is read" in held


def one_line(config: hf.Config) -> str:
    """The compiled program as it is printed, without its line breaks."""
    return " ".join(str(hf.compile(config)).split())
