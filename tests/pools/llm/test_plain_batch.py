"""A batch that only counts its blocks gives the tables of the general one, of which it is the short form."""

from __future__ import annotations

from unittest.mock import patch

import pytest

import hermes_flow as hf
from benchmarks.fingerprints import fingerprints
from hermes_flow.pools.llm import queue_and_batch
from hermes_flow.pools.llm.batch import RunningBatch
from hermes_flow.pools.llm.plain_batch import PlainBatch


@pytest.mark.parametrize(
    ("batching", "preemption", "cluster", "blocks", "lookahead"),
    [
        ("chunked", "recompute", "replicas", 60, 1),
        ("chunked", "swap", "replicas", 90, 0),
        ("continuous", "recompute", "replicas", 70, 0),
        ("mixed", "swap", "disaggregated", 80, 1),
        ("static", "recompute", "replicas", 200, 1),
        ("chunked", "recompute", "disaggregated", 60, 1),
    ],
)
def test_both_batches_give_the_same_tables(
    batching: str, preemption: str, cluster: str, blocks: int, lookahead: int
) -> None:
    pool = "cluster.pools.llm" if cluster == "replicas" else "cluster.pools.decode"
    overrides = [
        *("pipeline=llm", f"cluster={cluster}", "workload=synthetic"),
        *("workload.requests=40", "workload.rate_per_s=40", "workload.input_tokens=300"),
        "workload.output_tokens={distribution: uniform, min: 1, max: 90}",
        *(f"{pool}.kv_blocks={blocks}", f"{pool}.preemption={preemption}", f"{pool}.lookahead={lookahead}"),
        *(f"{pool}.prefix_cache=false", f"{pool}.batching={batching}"),
    ]
    program = hf.compile(hf.compose(overrides))
    plain = fingerprints(hf.simulate(program), steps=True)
    assert queue_and_batch._BATCHES[False, False] is PlainBatch
    with patch.dict(queue_and_batch._BATCHES, {(False, False): RunningBatch}):
        assert fingerprints(hf.simulate(program), steps=True) == plain
