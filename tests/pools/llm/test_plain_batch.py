"""A batch that only counts its blocks gives the tables of the general one, of which it is the short form."""

from __future__ import annotations

from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st
from tries import tries

import hermes_flow as hf
from benchmarks.fingerprints import fingerprints
from hermes_flow.pools.llm import queue_and_batch
from hermes_flow.pools.llm.batch import RunningBatch
from hermes_flow.pools.llm.plain_batch import PlainBatch


@settings(max_examples=tries(8, of=100))
@given(
    batching=st.sampled_from(["chunked", "continuous", "mixed", "static"]),
    preemption=st.sampled_from(["recompute", "swap"]),
    cluster=st.sampled_from(["replicas", "disaggregated"]),
    blocks=st.integers(60, 200),
    lookahead=st.integers(0, 1),
    seed=st.integers(0, 99),
)
def test_both_batches_give_the_same_tables(
    batching: str, preemption: str, cluster: str, blocks: int, lookahead: int, seed: int
) -> None:
    pool = "cluster.pools.llm" if cluster == "replicas" else "cluster.pools.decode"
    overrides = [
        *("pipeline=llm", f"cluster={cluster}", f"seed={seed}", "workload=synthetic"),
        *("workload.requests=40", "workload.rate_per_s=40", "workload.input_tokens=300"),
        "workload.output_tokens={distribution: uniform, min: 1, max: 90}",
        *(f"{pool}.kv_blocks={blocks}", f"{pool}.preemption={preemption}", f"{pool}.lookahead={lookahead}"),
        *(f"{pool}.prefix_cache=false", f"{pool}.batching={batching}"),
    ]
    try:
        program = hf.compile(hf.compose(overrides))
    except hf.ConfigError:
        return  # a combination that is refused
    plain = fingerprints(hf.simulate(program), steps=True)
    assert queue_and_batch._BATCHES[False, False] is PlainBatch
    with patch.dict(queue_and_batch._BATCHES, {(False, False): RunningBatch}):
        assert fingerprints(hf.simulate(program), steps=True) == plain
