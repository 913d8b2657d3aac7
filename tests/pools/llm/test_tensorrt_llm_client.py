"""TensorRT-LLM's scheduler: equal to a naive simulator written from its rules in words, and worked examples."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracles.tensorrt_llm_scheduler import Oracle, Request, Settings
from tries import tries

import hermes_flow as hf
from hermes_flow.errors import CompileError, HermesFlowError

FIXED_US, EACH_US, PAST_US = 1000, 10, 1
POLICIES = ("guaranteed_no_evict", "max_utilization", "static_batch")
CHUNKS = ("none", "first_come_first_served", "equal_progress")


def system(seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return random settings of a pool and the rows of a trace."""
    rng = np.random.default_rng(seed)
    size = int(rng.choice([4, 8, 16]))
    reuse = bool(rng.random() < 0.5)
    pool = {
        "capacity_scheduler_policy": POLICIES[seed % 3],
        "context_chunking_policy": CHUNKS[seed // 3 % 3],
        "block_size": size,
        "max_num_seqs": int(rng.choice([2, 4, 32])),
        "lookahead": int(rng.integers(2)),
        "prefix_cache": reuse,
    }
    cut = pool["context_chunking_policy"] != "none"
    pool["max_num_batched_tokens"] = int(rng.choice([32, 64] if cut else [160, 400]))
    pool["kv_blocks"] = -(-int(rng.choice([150, 300, 3000])) // size)
    rows, at = [], 0
    for number in range(int(rng.integers(5, 30))):
        at += int(rng.choice([0, 500, 3000, 20000]))
        prompt, output = int(rng.integers(1, 90)), int(rng.integers(1, 40))
        limit = output + int(rng.choice([0, 0, 25]))
        family = int(rng.integers(3))
        shared = int(rng.integers(0, prompt // size + 1)) if rng.random() < 0.7 else 0
        whole = -(-prompt // size)
        names = [family * 1000 + k if k < shared else 10_000 * (number + 1) + k for k in range(whole)]
        row: dict[str, Any] = {
            "arrival_us": at,
            "input_tokens": prompt,
            "output_tokens": output,
            "output_limit": limit,
        }
        rows.append(row | ({"prefix_hashes": names} if reuse else {}))
    return pool, rows


def simulated(folder: Path, pool: dict[str, Any], rows: list[dict[str, Any]]) -> hf.Result:
    return hf.simulate(compiled(folder, pool, rows))


def compiled(
    folder: Path, pool: dict[str, Any], rows: list[dict[str, Any]], further: Sequence[str] = ()
) -> hf.Program:
    path = folder / "trace.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    cost = f"cost={{kind: affine, fixed_us: {FIXED_US}, per_token_us: {EACH_US}, per_context_us: {PAST_US}}}"
    words = ["pipeline=llm", "engine=tensorrt_llm", "slo=none", cost, "output.steps=true"]
    words += ["workload=trace", f"workload.path={path}"]
    words += [f"cluster.pools.llm.{key}={str(value).lower()}" for key, value in pool.items()]
    if pool["prefix_cache"]:
        words.append(f"workload.prefix_block_tokens={pool['block_size']}")
    return hf.compile(hf.compose([*words, *further]))


def by_the_rules(
    pool: dict[str, Any],
    rows: list[dict[str, Any]],
    unit: int | None,
    withdrawn: dict[int, int] | None = None,
) -> Oracle:
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
        *(pool.get("batch_wait_timeout_iters", 0), pool.get("batch_wait_max_tokens_ratio", 0.0)),
        round(pool.get("batch_wait_timeout_ms", 0.0) * 1_000_000),
    )
    for number, at in (withdrawn or {}).items():
        requests[number].withdrawn = at
    oracle = Oracle(settings, requests)
    oracle.run()
    return oracle


@pytest.mark.parametrize("seed", [*range(tries(20, of=900)), 196, 221, 312])
def test_it_agrees_with_the_naive_simulator_exactly(seed: int, tmp_path: Path) -> None:
    agree(*system(seed), tmp_path)


def agree(pool: dict[str, Any], rows: list[dict[str, Any]], folder: Path) -> None:
    """Compare a run with the naive simulator's; if its requests wait for each other for ever, a message says so."""
    unit = None if pool["context_chunking_policy"] == "none" else pool["block_size"]
    oracle = by_the_rules(pool, rows, unit)
    if all(one.done for one in oracle.requests):
        check(simulated(folder, pool, rows), oracle, pool)
    else:
        with pytest.raises(
            HermesFlowError, match=r"would wait for each other for ever: .*cluster\.pools\.llm\.kv_blocks"
        ):
            simulated(folder, pool, rows)


def check(result: hf.Result, oracle: Oracle, pool: dict[str, Any]) -> None:
    steps = [tuple(row) for row in result.steps.select("decodes", "decode_context", "prefill_tokens").rows()]
    assert steps == oracle.steps
    found = result.requests
    for column, expected in (("first_token_s", "first"), ("finish_s", "finish")):
        ns = [round(seconds * 1e9) for seconds in found[column]]
        assert ns == [getattr(one, expected) for one in oracle.requests]
    assert found["preemptions"].to_list() == [one.pauses for one in oracle.requests]
    if pool["prefix_cache"]:
        assert found["cached_tokens"].to_list() == [one.found for one in oracle.requests]


def waiting_system(seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a random system whose prompts wait for fuller steps, whose decisions wait for requests, or both."""
    rng = np.random.default_rng(10_000 + seed)
    pool, rows = system(seed)
    if seed % 3 < 2:
        pool["batch_wait_timeout_iters"] = int(rng.choice([1, 3, 10]))
        pool["batch_wait_max_tokens_ratio"] = float(rng.choice([0.2, 0.5, 1.0]))
    if seed % 3:
        pool["batch_wait_timeout_ms"] = float(rng.choice([0.2, 1.5, 7.0]))
    return pool, rows


@pytest.mark.parametrize("seed", range(tries(7, of=600)))
def test_waits_for_fuller_steps_agree_with_the_naive_simulator(seed: int, tmp_path: Path) -> None:
    agree(*waiting_system(seed), tmp_path)


def test_pauses_of_decisions_that_came_out_empty_are_counted(tmp_path: Path) -> None:
    pool, rows = system(208)
    result, oracle = simulated(tmp_path, pool, rows), by_the_rules(pool, rows, None)
    assert result.requests["preemptions"].to_list() == [one.pauses for one in oracle.requests]


def test_the_random_systems_pause_cut_and_find() -> None:
    pauses = found = cut = 0
    for seed in range(tries(42, of=900)):
        pool, rows = system(seed)
        unit = None if pool["context_chunking_policy"] == "none" else pool["block_size"]
        oracle = by_the_rules(pool, rows, unit)
        pauses += sum(one.pauses for one in oracle.requests)
        found += sum(one.found > 0 for one in oracle.requests)
        cut += unit is not None and len(oracle.steps) > 0
    assert pauses > 20
    assert found > 50
    assert cut > 20


# Worked examples


def rows_of(*sizes: tuple[int, int, int]) -> list[dict[str, Any]]:
    """Return requests that come together, by prompt, answer and limit."""
    keys = ("input_tokens", "output_tokens", "output_limit")
    return [{"arrival_us": 0} | dict(zip(keys, one, strict=True)) for one in sizes]


POOL: dict[str, Any] = {
    "capacity_scheduler_policy": "guaranteed_no_evict",
    "context_chunking_policy": "none",
    "block_size": 16,
    "max_num_seqs": 8,
    "max_num_batched_tokens": 256,
    "kv_blocks": 8,
    "lookahead": 0,
    "prefix_cache": False,
}


def ms(values: Any) -> list[float]:
    return [round(1e3 * value, 6) for value in values]


def test_a_request_waits_until_its_whole_limit_is_free(tmp_path: Path) -> None:
    """8 blocks: the first request may come to need 5, so the second one, which may need 4, waits for its end."""
    result = simulated(tmp_path, POOL, rows_of((40, 2, 40), (40, 2, 24)))
    first_steps = (1.0 + 0.4, 1.0 + 0.01 + 0.04)
    assert ms(result.requests["finish_s"])[0] == pytest.approx(sum(first_steps))
    assert ms(result.requests["ttft_s"])[1] == pytest.approx(sum(first_steps) + 1.4)
    together = simulated(tmp_path, POOL, rows_of((40, 2, 24), (40, 2, 24)))
    assert ms(together.requests["ttft_s"]) == pytest.approx([1.8, 1.8])


def test_with_utilization_the_last_request_is_paused_and_computed_again(tmp_path: Path) -> None:
    """Two prompts of 64 tokens fill all 8 blocks: to decode, the first one takes a block of the second."""
    pool = POOL | {"capacity_scheduler_policy": "max_utilization"}
    result = simulated(tmp_path, pool, rows_of((64, 3, 3), (64, 3, 3)))
    assert result.requests["preemptions"].to_list() == [0, 1]
    steps = result.steps.select("decodes", "prefill_tokens").rows()
    assert steps == [(0, 128), (1, 0), (1, 0), (0, 65), (1, 0)]


def test_prompts_share_a_step_by_turns(tmp_path: Path) -> None:
    """64 tokens in units of 16: two prompts of 100 get 32 each by turns, and 64 and none in order."""
    pool = POOL | {"max_num_batched_tokens": 64, "kv_blocks": 100}
    load = rows_of((100, 1, 1), (100, 1, 1))
    by_turns = simulated(tmp_path, pool | {"context_chunking_policy": "equal_progress"}, load)
    assert by_turns.steps["prefill_tokens"].to_list() == [64, 64, 64, 8]
    assert ms(by_turns.requests["first_token_s"])[0] == ms(by_turns.requests["first_token_s"])[1]
    in_order = simulated(tmp_path, pool | {"context_chunking_policy": "first_come_first_served"}, load)
    assert in_order.steps["prefill_tokens"].to_list() == [64, 52, 64, 20]


def test_a_duplicate_waits_for_the_prompt_that_is_being_computed(tmp_path: Path) -> None:
    pool = POOL | {"kv_blocks": 100, "prefix_cache": True}
    rows = [row | {"prefix_hashes": [1, 2, 3]} for row in rows_of((40, 2, 2), (40, 2, 2))]
    result = simulated(tmp_path, pool, rows)
    assert result.requests["cached_tokens"].to_list() == [0, 32]
    assert result.steps["prefill_tokens"].to_list() == [40, 8, 0]


def test_a_prompt_beside_decodes_waits_for_a_fuller_step(tmp_path: Path) -> None:
    """One of 16 tokens comes while another decodes: a step needs 64 tokens, and the prompt waits for 3 steps."""
    pool = POOL | {"batch_wait_timeout_iters": 3, "batch_wait_max_tokens_ratio": 0.25}
    rows = [
        row | {"arrival_us": at} for row, at in zip(rows_of((16, 9, 9), (16, 1, 1)), (0, 1200), strict=True)
    ]
    steps = simulated(tmp_path, pool, rows).steps.select("decodes", "prefill_tokens").rows()
    assert steps == [(0, 16), (1, 0), (1, 0), (1, 0), (1, 0), (1, 16), (1, 0), (1, 0), (1, 0)]
    large = [row | {"input_tokens": 63} if row["arrival_us"] else row for row in rows]
    steps = (
        simulated(tmp_path, pool | {"kv_blocks": 50}, large).steps.select("decodes", "prefill_tokens").rows()
    )
    assert steps[2] == (1, 63)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ("engine=vllm", "cluster.pools.llm.context_chunking_policy=none"),
            "it is one of engine=tensorrt_llm",
        ),
        (
            ("engine=sglang", "cluster.pools.llm.batch_wait_timeout_ms=5"),
            r"batch_wait_timeout_ms: 5.0, but the scheduler of engine 'sglang' has no such setting",
        ),
        (
            (
                "model=deepseek_v3",
                "cluster.pools.llm.data_parallel=2",
                "cluster.pools.llm.batch_wait_timeout_ms=5",
            ),
            r"batch_wait_timeout_ms: 5 is not modelled with data_parallel=2; expected 0",
        ),
        (
            ("cluster.pools.llm.batch_wait_timeout_iters=20",),
            r"batch_wait_timeout_iters: 20 has no effect without batch_wait_max_tokens_ratio",
        ),
        (("cluster.pools.llm.batching=static",), r"batching: .*its scheduler has rules of its own"),
        (
            ("cluster.pools.llm.preemption=swap",),
            r"preemption: .*capacity_scheduler_policy says whether it pauses",
        ),
        (("cluster.pools.llm.packing=lpm",), r"packing: .* is no order of TensorRT-LLM; expected fcfs"),
        (
            ("cluster.pools.llm.pipeline_parallel=2",),
            r"pipeline_parallel: 2 is not modelled with TensorRT-LLM's",
        ),
        (
            (
                "cluster.pools.llm.context_chunking_policy=equal_progress",
                "cluster.pools.llm.max_num_batched_tokens=20",
            ),
            r"max_num_batched_tokens: 20 is below a unit of chunks, 32 tokens",
        ),
    ],
)
def test_what_the_scheduler_cannot_do_is_refused(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(CompileError, match=message):
        hf.compile(hf.compose(["pipeline=llm", "engine=tensorrt_llm", "workload.requests=5", *overrides]))


def test_a_prompt_longer_than_a_step_fails_where_prompts_are_not_cut(tmp_path: Path) -> None:
    result = simulated(tmp_path, POOL | {"kv_blocks": 100}, rows_of((300, 2, 2), (40, 2, 2)))
    assert result.requests["status"].to_list() == ["failed", "completed"]
    assert (
        "longer than a step, and context_chunking_policy is none (256 tokens)"
        in result.summary["warnings"][0]
    )


def test_its_share_of_the_memory_is_of_what_the_weights_leave_free() -> None:
    def blocks(*overrides: str) -> int:
        given = ["pipeline=llm", "workload.requests=5", "hardware.reserved_gb=1.2"]
        program = hf.compile(hf.compose([*given, *overrides]))
        (pool,) = [pool for pool in program.pools if pool.name == "llm"]
        return int(pool.client.kv_blocks or 0) * int(getattr(pool.client, "block_size", 0))

    share = "cluster.pools.llm.memory_utilization=0.5"
    whole = blocks("engine=vllm", "cluster.pools.llm.memory_utilization=1.0")
    assert blocks("engine=tensorrt_llm", share) == pytest.approx(whole / 2, rel=1e-3)
