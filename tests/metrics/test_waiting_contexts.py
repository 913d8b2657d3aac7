"""A run says how much of the retrieved contexts waited for seats at once, where that is much."""

from __future__ import annotations

import numpy as np

import hermes_flow as hf
from hermes_flow.metrics.waiting_contexts import _peak


def warnings(*words: str) -> str:
    given = ["pipeline=kv_reuse", "slo=none", "workload.requests=150", *words]
    return str(hf.simulate(hf.compile(hf.compose(given))).summary["warnings"])


def test_contexts_that_pile_up_before_a_full_client_are_named() -> None:
    text = warnings("workload.rate_per_s=200", "cluster.pools.llm.kv_blocks=4000")
    assert "retrieved contexts of up to" in text
    assert "of its KV cache, and took no memory there" in text


def test_contexts_that_are_used_at_once_are_not() -> None:
    assert "retrieved contexts" not in warnings("workload.rate_per_s=0.5")


def test_the_peak_is_that_of_one_client_at_one_time() -> None:
    """Client 0 holds 5 and then 7 tokens, 3 of them together with the 7; client 1 holds 9 at other times."""
    clients = np.array([0, 0, 0, 0, 0, 0, 1, 1])
    at = np.array([0, 10, 10, 30, 20, 25, 5, 6])
    change = np.array([5, -5, 7, -7, 3, -3, 9, -9])
    assert _peak(clients, at, change) == 10
    assert _peak(clients[:4], at[:4], change[:4]) == 7
