"""Rates of flows that share links: against progressive filling in fractions, and against the definition."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.fluid_network import fill_links
from tries import tries

from hermes_flow.network.max_min import max_min_rates

UNITS = 2**80  # of a byte: rates are whole numbers of them

Flows = dict[int, tuple[int, ...]]
Capacity = dict[int, float]


@st.composite
def shared_links(draw: st.DrawFn) -> tuple[Flows, Capacity]:
    """Draw up to 12 flows over up to 8 links, whose capacities are alike, or far apart, or neither."""
    links = draw(st.integers(1, 8))
    rates = st.one_of(st.integers(1, 4).map(float), st.floats(1e-6, 1e6), st.just(450.0))
    capacity = {link: draw(rates) for link in range(links)}
    taken = st.sets(st.integers(0, links - 1), min_size=1, max_size=4).map(tuple)
    flows = draw(st.dictionaries(st.integers(0, 99), taken, min_size=1, max_size=12))
    return flows, capacity


def rates_of(flows: Flows, capacity: Capacity) -> dict[int, float]:
    """Return the rate of each flow, as the fabric asks for them: flows over the same links together."""
    counts: dict[tuple[int, ...], int] = {}
    for links in flows.values():
        counts[links] = counts.get(links, 0) + 1
    whole = {link: int(rate * UNITS) for link, rate in capacity.items()}
    rates = dict(zip(counts, max_min_rates(list(counts), list(counts.values()), whole), strict=True))
    return {flow: rates[links] / UNITS for flow, links in flows.items()}


def load(flows: Flows, rates: dict[int, float], link: int) -> float:
    return sum(rates[flow] for flow, links in flows.items() if link in links)


@settings(max_examples=tries(100, of=300))
@given(shared=shared_links())
def test_rates_equal_progressive_filling_in_exact_arithmetic(shared: tuple[Flows, Capacity]) -> None:
    flows, capacity = shared
    rates = rates_of(flows, capacity)
    expected = fill_links(flows, {link: Fraction(rate) for link, rate in capacity.items()})
    assert rates.keys() == flows.keys()
    for flow, rate in rates.items():
        assert rate == pytest.approx(float(expected[flow]), rel=1e-9)


@settings(max_examples=tries(100, of=300))
@given(shared=shared_links())
def test_every_flow_has_a_full_link_on_which_nobody_is_faster(shared: tuple[Flows, Capacity]) -> None:
    flows, capacity = shared
    rates = rates_of(flows, capacity)
    for link, most in capacity.items():
        assert load(flows, rates, link) <= most * (1 + 1e-9)
    for flow, links in flows.items():
        assert rates[flow] > 0
        assert any(
            math.isclose(load(flows, rates, link), capacity[link], rel_tol=1e-9)
            and all(rates[other] <= rates[flow] * (1 + 1e-9) for other in flows if link in flows[other])
            for link in links
        )


@settings(max_examples=tries(80, of=200))
@given(shared=shared_links(), which=st.integers(0, 11), more=st.floats(1.001, 10))
def test_no_rate_can_be_raised_but_at_the_cost_of_one_that_is_not_larger(
    shared: tuple[Flows, Capacity], which: int, more: float
) -> None:
    flows, capacity = shared
    rates = rates_of(flows, capacity)
    raised = sorted(flows)[which % len(flows)]
    # Take all that the faster ones have on the raised flow's links: it still does not fit.
    slow = {flow: rate for flow, rate in rates.items() if rate <= rates[raised] * (1 + 1e-9)}
    slow[raised] = rates[raised] * more
    assert any(
        sum(rate for flow, rate in slow.items() if link in flows[flow]) > capacity[link]
        for link in flows[raised]
    )


def test_the_order_of_flows_and_the_names_of_links_do_not_matter() -> None:
    flows = {1: (0, 1), 2: (1,), 3: (2, 0), 4: (2,)}
    capacity = {0: 3.0, 1: 1.0, 2: 10.0}
    rates = rates_of(flows, capacity)
    assert rates == {1: 0.5, 2: 0.5, 3: 2.5, 4: 7.5}
    backwards = {flow: tuple(2 - link for link in flows[flow]) for flow in reversed(flows)}
    assert rates_of(backwards, {2 - link: rate for link, rate in capacity.items()}) == rates


def test_nobody_to_share_with_means_the_narrowest_link() -> None:
    assert rates_of({7: (0, 1, 2)}, {0: 9.0, 1: 2.0, 2: 5.0}) == {7: 2.0}
    assert rates_of({}, {}) == {}
