"""Prompts that get their blocks before their contexts are read: equal to a naive client, and worked by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from oracles.held_contexts import Client, Request, Settings
from tries import tries

import hermes_flow as hf
from hermes_flow.errors import CompileError, ConfigError
from hermes_flow.program.kv_store import KVLookup
from hermes_flow.validation.invariants.check import check_run

KEY = "cluster.pools.llm"
HELD = f"{KEY}.retrieved_kv=held"
FIXED_US, EACH_US, PAST_US = 1000, 10, 1
BESIDE = [
    *(
        "pipeline=kv_reuse",
        "slo=none",
        "cluster.pools.store.beside=llm",
        "cluster.pools.store.contention=false",
        "cluster.pools.store.write_back=false",
    ),
    *("pipeline.stages.recall.contexts=null", "pipeline.stages.recall.skew=0"),
    *("pipeline.stages.recall.hits={dram: 1.0}", f"{KEY}.lookahead=0"),
    f"cost={{kind: affine, fixed_us: {FIXED_US}, per_token_us: {EACH_US}, per_context_us: {PAST_US}}}",
]


def run(folder: Path, rows: list[dict[str, int]], *words: str) -> hf.Result:
    path = folder / "trace.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return hf.simulate(
        hf.compile(hf.compose([*BESIDE, "workload=trace", f"workload.path={path}", HELD, *words]))
    )


def ns(result: hf.Result, stage: str, column: str) -> list[int]:
    rows = result.stages.filter(pl.col("stage") == stage).sort("request")
    return [round(seconds * 1e9) for seconds in rows[column]]


def by_hand(result: hf.Result, settings: Settings) -> tuple[Client, list[Request]]:
    """Run the naive client with the reads that the store has taken, each of which has its whole bandwidth."""
    (prefill,) = (op for op in result.recording.program.ops if op.context is not None)
    assert prefill.llm is not None
    assert prefill.context is not None
    lookup = result.recording.program.ops[prefill.context.source].work
    assert isinstance(lookup, KVLookup)
    ready, start, finish = (ns(result, "recall", f"{name}_s") for name in ("ready", "start", "finish"))
    requests = [
        Request(ready[one], int(prompt), int(output), int(context), finish[one] - start[one])
        for one, (prompt, output, context) in enumerate(
            zip(prefill.llm.prompt, prefill.llm.output, lookup.tokens, strict=True)
        )
    ]
    client = Client(settings, requests)
    client.run()
    return client, requests


@pytest.mark.parametrize("seed", range(tries(5, of=400)))
def test_it_equals_the_naive_client(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    size, context = int(rng.choice([8, 16])), int(rng.choice([100, 333, 1000]))
    rows: list[dict[str, int]] = []
    at = 0
    for _ in range(int(rng.integers(4, 25))):
        at += int(rng.choice([0, 2000, 30_000]))
        prompt, output = int(rng.integers(1, 200)), int(rng.integers(1, 20))
        rows.append({"arrival_us": at, "input_tokens": prompt, "output_tokens": output})
    whole = -(-(context + 220) // size)
    settings = Settings(
        *(whole * int(rng.choice([2, 3, 5])), size, int(rng.choice([2, 8])), int(rng.choice([64, 4096]))),
        *(FIXED_US * 1000, EACH_US * 1000, PAST_US * 1000),
    )
    result = run(
        tmp_path,
        rows,
        *(
            f"{KEY}.kv_blocks={settings.blocks}",
            f"{KEY}.block_size={size}",
            f"{KEY}.max_num_seqs={settings.seats}",
        ),
        *(
            f"{KEY}.max_num_batched_tokens={settings.budget}",
            f"pipeline.stages.recall.context_tokens={context}",
        ),
        "cluster.pools.store.tiers.dram.bandwidth_gb_s=20",
    )
    client, requests = by_hand(result, settings)
    if client.short:
        assert result.requests["preemptions"].sum() > 0
        return
    assert client.most_held > 0
    assert ns(result, "recall", "start_s") == [one.granted for one in requests]
    found = result.requests.sort("request")
    assert [round(value * 1e9) for value in found["first_token_s"]] == [one.first for one in requests]
    assert result.requests["preemptions"].sum() == 0


def test_a_context_waits_for_blocks_before_it_is_read(tmp_path: Path) -> None:
    """Two prompts of 1,000 tokens at once, and memory for one of them and its answer.

    The second one is read only when the first has ended, because its blocks are free then. With blocks at admission
    both are read at once.
    """
    rows = [{"arrival_us": 0, "input_tokens": 100, "output_tokens": 50}] * 2
    words = [
        *("pipeline.stages.recall.context_tokens=900", f"{KEY}.kv_blocks=70", f"{KEY}.block_size=16"),
        "cluster.pools.store.tiers.dram.bandwidth_gb_s=1",
    ]
    held = run(tmp_path, rows, *words)
    first_ends = round(held.requests.sort("request")["finish_s"][0] * 1e3)
    starts = [round(at / 1e6) for at in ns(held, "recall", "start_s")]
    assert starts[0] < 5
    assert abs(starts[1] - first_ends) <= 1
    early = run(tmp_path, rows, *words, f"{KEY}.retrieved_kv=at_admission")
    assert max(ns(early, "recall", "start_s")) < 5_000_000
    assert held.requests["e2e_s"].max() > early.requests["e2e_s"].max()
    assert any("took no memory there" in text for text in early.summary["warnings"])
    assert not held.summary["warnings"]


@pytest.mark.parametrize(
    "words",
    [
        [
            *("workload=sessions", "workload.sessions=8", "pipeline.stages.recall.context_tokens=null"),
            *("pipeline.stages.recall.per_session=true", "pipeline.stages.recall.hits=null"),
            *(
                "cluster.pools.store.contention=true",
                "cluster.pools.store.write_back=true",
                f"{KEY}.kv_blocks=600",
            ),
        ],
        ["cluster.pools.llm.count=2", "cluster.pools.store.count=2"],
        ["cluster.pools.store.beside=null", "cluster.pools.store.contention=true"],
        [f"{KEY}.batching=continuous", f"{KEY}.lookahead=1", f"{KEY}.kv_blocks=700"],
        ["workload.timeout_s=6", f"{KEY}.kv_blocks=500"],
    ],
    ids=["sessions", "two clients", "over the network", "whole prompts", "timeouts"],
)
def test_runs_keep_every_invariant(words: list[str], tmp_path: Path) -> None:
    base = [*BESIDE, HELD, "workload=synthetic", "workload.requests=40", "workload.rate_per_s=20"]
    base = [*BESIDE, HELD] if "workload=sessions" in words else base
    result = hf.simulate(hf.compile(hf.compose([*base, *words, "output.steps=true"])))
    assert result.summary["requests"]["completed"] > 5
    result.write(tmp_path / "run")
    assert check_run(tmp_path / "run").violations == ()


def problems_of(*words: str) -> str:
    with pytest.raises((CompileError, ConfigError)) as error:
        hf.compile(hf.compose([*BESIDE, HELD, *words]))
    return str(error.value)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["engine=sglang"], "held follows vLLM's scheduler, and the engine is sglang; expected at_admission"),
        ([f"{KEY}.preemption=swap"], "held is not modelled with preemption=swap; expected recompute"),
        ([f"{KEY}.prefix_cache=true"], "prefix_cache: true, but retrieved_kv: held is not modelled with one"),
        (
            ["pipeline.stages.recall.overlap=true"],
            "recall.overlap: true, but cluster.pools.llm.retrieved_kv is",
        ),
        ([f"{KEY}.autoscale=queue"], "held is not modelled with autoscale; expected autoscale: null"),
        (
            ["cluster.sites={us: {users: 1}}"],
            "held is not modelled with cluster.sites; expected at_admission",
        ),
    ],
)
def test_what_is_not_modelled_is_refused(words: list[str], expected: str) -> None:
    assert expected in problems_of(*words)


def test_it_says_where_it_has_no_effect() -> None:
    program = hf.compile(hf.compose(["pipeline=llm", HELD]))
    assert any(f"{KEY}.retrieved_kv has no effect" in text for text in program.warnings)
