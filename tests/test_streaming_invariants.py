"""What holds in every run of answers that pause, are read as they are written, and go where there is room."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from metrics.test_critical_path import assert_parts_add_up
from oracles.watched_run import watch

import hermes_flow as hf
from hermes_flow.config.schema import Config, Pipeline
from hermes_flow.pools.llm.client import LLMClient
from hermes_flow.pools.llm.pipelined_client import PipelinedClient

LENGTHS: dict[str, Any] = {"distribution": "uniform", "min": 1, "max": 40}
STAGES: dict[str, dict[str, Any]] = {
    "ask": {"kind": "prefill", "model": "llama3_70b", "route": {"size": "large"}},
    "answer": {"kind": "decode", "after": ["ask"], "model": "llama3_70b"},
    "look": {"kind": "detokenize", "during": "answer"},
    "brief": {"kind": "prefill", "model": "llama3_8b", "route": {"size": "small"}},
    "reply": {"kind": "decode", "after": ["brief"], "model": "llama3_8b"},
    "guard": {
        "kind": "guard",
        "of": "answer",
        "after": ["reply"],
        "pool": "small",
        "stop_share": 0.3,
        "lag_tokens": 2,
    },
}


@functools.cache
def composed() -> Config:
    affine = ("cost=affine", "cost.fixed_us=1000", "cost.per_token_us=10", "cost.per_context_us=0.01")
    return hf.compose(["cluster=two_models", "workload=synthetic", "slo=none", *affine])


@settings(max_examples=20)
@given(
    every=st.integers(2, 9),
    pause=st.sampled_from([{"every_tokens": 3}, {"every_tokens": 11}, {"times": 3}]),
    limit=st.integers(0, 6),
    measure=st.sampled_from(["requests", "tokens"]),
    blocks=st.integers(25, 60),
    cached=st.booleans(),
    batching=st.sampled_from(["chunked", "continuous", "mixed"]),
    lookahead=st.sampled_from([0, 1]),
    deep=st.sampled_from([1, 1, 2]),
    clients=st.integers(1, 2),
    seed=st.integers(0, 999),
)
def test_requests_are_completed_blocks_freed_and_times_in_order(
    every: int,
    pause: dict[str, Any],
    limit: int,
    measure: str,
    blocks: int,
    cached: bool,
    batching: str,
    lookahead: int,
    deep: int,
    clients: int,
    seed: int,
) -> None:
    stages = STAGES | {
        "answer": STAGES["answer"] | {"pause": pause},
        "guard": STAGES["guard"] | {"every_tokens": every},
    }
    route = {"by": "load", "measure": measure, "large": limit, "small": "else"}
    base: Any = composed()
    pool = {
        "kv_blocks": blocks,
        "block_size": 4,
        "prefix_cache": cached,
        "batching": batching,
        "lookahead": lookahead,
        "pipeline_parallel": deep,
        "count": clients,
        "max_num_batched_tokens": 64,
        "max_num_seqs": 12,
    }
    pools = dict(base.cluster.pools)
    pools["large"] = replace(pools["large"], **pool)
    pools["small"] = replace(pools["small"], **pool, serves=("prefill", "decode", "guard"))
    load = replace(
        base.workload, requests=20, rate_per_s=300.0, input_tokens=LENGTHS, output_tokens=LENGTHS, seed=seed
    )
    pipeline = Pipeline("any", stages, {}, {"size": route})
    cluster = replace(base.cluster, pools=pools)
    program = hf.compile(replace(base, pipeline=pipeline, cluster=cluster, workload=load, seed=seed))
    watched = watch(program)
    recording = watched.recording
    for client in watched.clients.values():
        if isinstance(client, LLMClient | PipelinedClient):
            for batch in client.batches:
                assert not batch.running
                assert (batch.decodes, batch.context) == (0, 0)
            assert max(batch.free for batch in client.batches) == blocks
            assert not client.waiting
    served = recording.status == 0
    large = recording.ops[0].client >= 0
    for op, record in zip(program.ops, recording.ops, strict=True):
        done = record.client >= 0
        asked = served if op.taken is None else served & op.taken
        assert (done == asked & (large if op.decided == (0, 0) else ~large)).all()
        assert (record.ready_ns <= record.start_ns)[done].all()
        assert (record.start_ns <= record.finish_ns)[done].all()
        for before in op.after:
            both = done & (recording.ops[before].client >= 0)
            since = (
                recording.ops[before].first_ns if op.at_token is not None else recording.ops[before].finish_ns
            )
            assert since is not None
            assert (since <= record.ready_ns)[both].all()
    result = hf.simulate(program)
    tokens = result.requests["output_tokens"].to_numpy()
    whole = program.requests.output_tokens
    assert (tokens == whole)[large & served].all()
    assert (tokens <= whole)[served].all()
    gaps = result.summary["itl_s"]["mean"]
    rows = result.requests.filter(result.requests["tpot_s"].is_not_null())
    if len(rows):
        waited = float((rows["tpot_s"] * (rows["output_tokens"] - 1)).sum())
        np.testing.assert_allclose(gaps, waited / int((rows["output_tokens"] - 1).sum()), rtol=1e-5)
    assert_parts_add_up(recording)
