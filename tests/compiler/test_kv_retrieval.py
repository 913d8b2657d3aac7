"""What retrievals look for and expect, and which configs cannot be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from kv_configs import CHAT, FAST, SLOW, TOKEN_BYTES, config_of

import hermes_flow as hf
from hermes_flow.errors import CompileError
from hermes_flow.pools.memory.schema import MemoryTier
from hermes_flow.program.kv_store import KVLookup
from hermes_flow.program.program import Program

HITS = {"fast": 0.5, "slow": 0.8}


def lookup(program: Program) -> KVLookup:
    """Return what the program's first op looks up."""
    found = program.ops[0].work
    assert isinstance(found, KVLookup)
    return found


def problems(recall: dict[str, Any], **changes: Any) -> list[str]:
    """Return what the compiler finds wrong."""
    with pytest.raises(CompileError) as raised:
        hf.compile(config_of(recall, **changes))
    return list(raised.value.problems)


def test_the_expectation_is_that_of_the_recursion_over_the_tiers() -> None:
    """f(1) = .5·(10 µs + KV/100) + .5·f(2), f(2) = .8·(200 µs + KV/10) + .2·0, KV of 1,000 tokens."""
    program = hf.compile(config_of({"context_tokens": 1000, "hits": HITS, "expected": True}, requests=3))
    kv = 1000 * TOKEN_BYTES
    second = 0.8 * (200_000 + kv / 10)
    first = 0.5 * (10_000 + kv / 100) + 0.5 * second
    found = lookup(program)
    assert found.bytes.tolist() == [kv] * 3
    assert found.expected_ns is not None
    assert found.expected_ns.tolist() == [round(first)] * 3
    assert found.expected_tokens is not None
    assert found.expected_tokens.tolist() == [900] * 3


def test_drawn_hits_have_their_shares() -> None:
    count = 40_000
    program = hf.compile(config_of({"context_tokens": 100, "hits": HITS}, requests=count))
    tier = lookup(program).tier
    assert tier is not None
    shares = np.bincount(tier + 1, minlength=3) / count
    for share, expected in zip(shares, (0.1, 0.5, 0.4), strict=True):
        assert abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / count)


def test_a_tier_that_is_not_named_hits_nothing_and_certainty_is_certain() -> None:
    program = hf.compile(config_of({"context_tokens": 100, "hits": {"slow": 1.0}}, requests=50))
    tier = lookup(program).tier
    assert tier is not None
    assert set(tier.tolist()) == {1}


def test_shared_contexts_are_as_likely_as_zipf_and_as_long_each_time() -> None:
    lengths = {"distribution": "uniform", "min": 10, "max": 1000}
    config = config_of({"context_tokens": lengths, "contexts": 3, "skew": 1.0}, requests=30_000)
    found = lookup(hf.compile(config))
    assert found.key is not None
    shares = np.bincount(found.key) / len(found.key)
    assert np.allclose(shares, np.array([6, 3, 2]) / 11, atol=0.015)
    assert len({(int(key), int(tokens)) for key, tokens in zip(found.key, found.tokens, strict=True)}) == 3


def test_the_context_comes_before_the_prompt() -> None:
    program = hf.compile(config_of({"context_tokens": 1000, "hits": HITS}, requests=20))
    prompt = program.ops[1].llm.prompt
    assert prompt is not None
    assert (prompt - program.requests.input_tokens).tolist() == [1000] * 20
    assert "contexts of 20,000 tokens, 2.6 GB" in str(program)


@pytest.mark.parametrize(
    ("recall", "expected"),
    [
        (
            {"context_tokens": 10, "hits": {"fsat": 0.5}},
            "recall.hits.fsat: no tier of pool 'store' is called 'fsat'",
        ),
        ({"context_tokens": 10, "hits": {"fast": 1.5}}, "recall.hits.fast: 1.5 is out of range"),
        ({"context_tokens": 10}, "recall.hits: none of them given"),
        ({"context_tokens": 10, "hits": HITS, "contexts": 2}, "recall.hits: hits and contexts given"),
        ({"hits": HITS}, "recall.context_tokens: missing"),
        ({"context_tokens": 0, "hits": HITS}, "recall.context_tokens: 0"),
        ({"context_tokens": 10, "contexts": 0}, "recall.contexts: 0 is out of range"),
        ({"context_tokens": 10, "contexts": 5, "skew": -1}, "recall.skew: -1"),
        ({"context_tokens": 10, "per_session": True, "skew": 1}, "recall.skew: 1"),
        ({"context_tokens": 10, "contexts": 5, "expected": True}, "recall.expected: true"),
        ({"context_tokens": 10, "per_session": True}, "recall.per_session: true, but the requests"),
        (
            {"context_tokens": 10_000_000, "contexts": 1},
            "tiers.fast.capacity_gb: 100 is below the 1.31e+03 GB",
        ),
    ],
)
def test_a_mistake_is_named_with_its_key(recall: dict[str, Any], expected: str) -> None:
    found = problems(recall)
    assert any(expected in problem for problem in found), found


def test_a_retrieval_needs_a_prefill_and_a_pool() -> None:
    recall = {"context_tokens": 10, "hits": HITS}
    alone = problems(recall, stages={"prefill": {"kind": "prefill"}, "decode": CHAT["decode"]})
    assert any(p.startswith("pipeline.stages.recall: no prefill comes after it") for p in alone)
    (nobody,) = problems(recall, store={"serves": ()})
    assert nobody.startswith("pipeline.stages.recall: no pool of cluster 'kv_tiers' serves 'kv_retrieval'")


def test_what_the_pools_cannot_do_is_refused() -> None:
    recall = {"context_tokens": 10, "contexts": 2}
    (found,) = problems(recall, llm={"batching": "static"})
    assert found.startswith("cluster.pools.llm.batching: a gang")
    (found,) = problems(recall, store={"write_back": False})
    assert found.startswith("cluster.pools.store.write_back: false")
    (found,) = problems(recall, store={"beside": "lmm"})
    assert "did you mean 'llm'" in found
    (found,) = problems(recall, store={"beside": "llm", "count": 2})
    assert found.startswith("cluster.pools.store.count: 2 stores beside the 1")
    (found,) = problems(recall, store={"beside": "llm", "routing": "random"})
    assert found.startswith(
        "cluster.pools.store.routing: the router of pool 'llm' decides which store is asked"
    )
    (found,) = problems(recall, tiers={"fast": replace(FAST, bandwidth_gb_s=0.0)})
    assert found.startswith("cluster.pools.store.tiers.fast.bandwidth_gb_s: 0")
    (found,) = problems(recall, tiers={})
    assert found.startswith("cluster.pools.store.tiers: empty")


def test_two_retrievals_before_one_prefill_are_refused() -> None:
    stages = {
        "more": {"kind": "kv_retrieval", "context_tokens": 5, "contexts": 2},
        "prefill": {"kind": "prefill", "after": ["recall", "more"]},
        "decode": CHAT["decode"],
    }
    (found,) = problems({"context_tokens": 10, "contexts": 2}, stages=stages)
    assert found.startswith("pipeline.stages.more: ")
    assert "expected one retrieval before it" in found


def test_the_tiers_of_several_stores_are_memories_of_their_own_or_shared() -> None:
    shared = MemoryTier(100, 10, shared_by=2)
    program = hf.compile(
        config_of(
            {"context_tokens": 10, "contexts": 2}, tiers={"fast": FAST, "slow": shared}, store={"count": 3}
        )
    )
    names = [memory.name for memory in program.hosts]
    assert names == ["store/0 fast", "store/1 fast", "store/2 fast", "store/0 slow", "store/2 slow"]
    assert SLOW.shared_by == 1
