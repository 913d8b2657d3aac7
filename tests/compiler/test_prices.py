"""List prices reach every pool whose hardware has none of its own."""

from __future__ import annotations

import pytest

import hermes_flow as hf
from hermes_flow.errors import ConfigError

FEW = ["pipeline=llm", "workload.requests=20"]


def price(*overrides: str, pool: str = "llm") -> float | None:
    program = hf.compile(hf.compose([*FEW, *overrides]))
    return next(one.usd_per_hour for one in program.pools if one.name == pool)


def test_a_client_costs_its_devices_at_the_list_price() -> None:
    assert price("cluster.pools.llm.tensor_parallel=2") == 2 * 3.99


def test_a_price_of_the_hardware_itself_comes_first() -> None:
    assert price("hardware.usd_per_hour=2.5") == 2.5


def test_a_list_can_be_swapped_changed_and_extended() -> None:
    assert price("prices=hyperscaler") == 6.88
    assert price("prices.usd_per_hour.h100_sxm=1.0") == 1.0
    assert price("hardware=mi300x", "+prices.usd_per_hour.mi300x=2.0") == 2.0


def test_hardware_that_no_list_names_has_no_cost() -> None:
    assert price("hardware=mi300x") is None
    summary = hf.simulate(hf.compile(hf.compose([*FEW, "hardware=mi300x"]))).summary
    assert summary["cost"]["usd_per_hour"] is None
    assert "llm" in summary["cost"]["unpriced"]


def test_every_pool_has_the_price_of_its_own_hardware() -> None:
    mixed = ["cluster=disaggregated", "hardware@cluster.pools.decode.hardware=l40s"]
    assert price(*mixed, pool="prefill") == 3.99
    assert price(*mixed, pool="decode") == 0.99


def test_a_negative_price_is_an_error_with_its_key() -> None:
    with pytest.raises(ConfigError, match=r"prices\.usd_per_hour\.h100_sxm: -1 is out of range"):
        price("prices.usd_per_hour.h100_sxm=-1")
