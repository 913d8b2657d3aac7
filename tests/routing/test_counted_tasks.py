"""Large pools count their unfinished tasks as they come and end; the choices are those of asking every client."""

from __future__ import annotations

from collections.abc import Sequence
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st
from tries import tries

import hermes_flow as hf
from benchmarks.fingerprints import fingerprints
from hermes_flow.machine import routers
from hermes_flow.pools.llm.client import LLMClient
from hermes_flow.routing.unfinished import Unfinished

PIPELINES = (
    "pipeline=llm",
    "pipeline=chat",
    "pipeline=agent",
    "pipeline=kv_reuse pipeline.stages.recall.overlap=true",
    "pipeline=rag",
)


@st.composite
def overrides(draw: st.DrawFn) -> list[str]:
    """A pool of 2 to 6 clients behind least_requests, from idle to overloaded."""
    return [
        *draw(st.sampled_from(PIPELINES)).split(),
        "workload=synthetic",
        f"workload.requests={draw(st.integers(5, 40))}",
        f"workload.rate_per_s={draw(st.sampled_from([2, 20, 200]))}",
        f"workload.output_tokens={{distribution: uniform, min: 1, max: {draw(st.sampled_from([3, 200]))}}}",
        f"cluster.pools.llm.count={draw(st.integers(2, 6))}",
        f"cluster.pools.llm.max_num_seqs={draw(st.sampled_from([2, 64]))}",
        "cluster.pools.llm.routing=least_requests",
        f"seed={draw(st.integers(0, 99))}",
    ]


@settings(max_examples=tries(10, of=60))
@given(chosen=overrides())
def test_counting_and_asking_choose_the_same_clients(chosen: list[str]) -> None:
    program = hf.compile(hf.compose(chosen))
    asked = fingerprints(hf.simulate(program), steps=True)
    with patch.object(routers, "_MANY_CLIENTS", 2):
        assert fingerprints(hf.simulate(program), steps=True) == asked


def test_a_large_pool_asks_no_client_for_its_tasks() -> None:
    load = ["workload=synthetic", "workload.requests=50", "cluster.pools.llm.count=20"]
    program = hf.compile(hf.compose(["pipeline=llm", *load, "cluster.pools.llm.routing=least_requests"]))
    assert "LeastRequests" in [type(pool.routing).__name__ for pool in program.pools]
    with patch.object(LLMClient, "outstanding", side_effect=AssertionError):
        hf.simulate(program)


@settings(max_examples=tries(50, of=500))
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.integers(0, 2)), max_size=400))
def test_the_least_is_the_first_client_with_the_fewest_tasks(
    happens: Sequence[tuple[int, bool, int]],
) -> None:
    unfinished, now = Unfinished(4), 0
    ends: list[tuple[int, int]] = []
    comes: list[int] = []
    for client, comes_one, later in happens:
        now += later
        running = comes.count(client) - sum(who == client for _, who in ends)
        if comes_one or not running:
            unfinished.come(client)
            comes.append(client)
        else:
            unfinished.end(client, now)
            ends.append((now, client))
        counts = [comes.count(one) - sum(who == one and at < now for at, who in ends) for one in range(4)]
        assert unfinished.least(now) == counts.index(min(counts))


def test_entries_do_not_grow_with_the_number_of_tasks() -> None:
    unfinished = Unfinished(2)
    for now in range(10_000):
        unfinished.come(now % 2)
        unfinished.end(now % 2, now)
        assert unfinished.least(now + 1) == 0
    assert len(unfinished._heap) <= 4 * 2 + 1024 + 1
