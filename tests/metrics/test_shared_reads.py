"""Reads that share the bandwidth of a store are told from the time that a read takes alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from kv_configs import SLOW, TOKEN_BYTES, config_of

import hermes_flow as hf
from hermes_flow.config.schema import SLO
from hermes_flow.pools.memory.schema import MemoryTier

READ_S = 1000 * TOKEN_BYTES / 10e9  # 1,000 tokens at 10 GB/s
LOOKUP_S = 200e-6


def why(tiers: dict[str, MemoryTier], **store: Any) -> dict[str, Any]:
    """Return why eight requests that come at once miss a TTFT of 1 ms."""
    at_once = {"process": "closed_loop", "concurrency": 8}
    config = config_of(
        {"context_tokens": 1000, "contexts": 4},
        tiers=tiers,
        llm={"count": 1},
        store={"count": 1, "write_back": False, "begins_with": "spread", **store},
        requests=8,
        arrivals=at_once,
        input_tokens=20,
        output_tokens=3,
    )
    config = replace(config, slo=SLO("own", ttft_ms={"p50": 1.0}))
    found: dict[str, Any] = hf.simulate(hf.compile(config)).summary["why"]
    return found


def test_what_other_reads_add_is_a_cause_of_its_own() -> None:
    causes = why({"slow": SLOW})["causes"]
    shared, alone = causes["recall.store.sharing"], causes["recall.store.service"]
    assert shared / alone == pytest.approx(7 * READ_S / (LOOKUP_S + READ_S), rel=1e-3)


def test_faster_tiers_are_what_helps_reads_that_share_one() -> None:
    resource = why({"slow": SLOW})["resource"]
    assert (resource["pool"], resource["name"]) == ("store", "tiers")
    assert resource["gain"] == pytest.approx(0.5, abs=0.02)  # all reads come at once


def test_reads_that_share_nothing_are_service() -> None:
    causes = why({"slow": SLOW}, contention=False)["causes"]
    assert "recall.store.sharing" not in causes
    assert causes["recall.store.service"] > 0
