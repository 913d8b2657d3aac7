"""Collectives over a torus, against closed forms, a count of what every link carries, and figures of whole pods."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest
from cost.catalog import hardware

import hermes_flow as hf
from hermes_flow.config.hardware import Torus
from hermes_flow.config.schema import AllReduceFit, Efficiency
from hermes_flow.cost.operators import Operators
from hermes_flow.cost.torus import collective_gb_s, exchanged_share, links, slice_of
from hermes_flow.errors import ConfigError
from hermes_flow.program.units import PS_PER_S

FLAT, CUBE = Torus(2, 16), Torus(3, 4)
SIZE = 8e6


def operators(name: str, devices: int, **changes: Any) -> Operators:
    """Operators whose all-reduces start in 5 µs and reach 0.8 of the links."""
    fit = AllReduceFit(alpha_us=5.0, fraction=0.8)
    unmeasured = Efficiency("by hand", {}, {}, None, {devices: fit})  # type: ignore[arg-type]
    return Operators(hardware(name, **changes), unmeasured, "hardware")


@pytest.mark.parametrize(
    ("torus", "devices", "box", "used"),
    [
        (FLAT, 1, (1, 1), 0),
        (FLAT, 2, (1, 2), 1),
        (FLAT, 4, (2, 2), 2),
        (FLAT, 8, (2, 4), 2),
        (FLAT, 128, (8, 16), 2),
        (FLAT, 256, (16, 16), 4),
        (CUBE, 4, (1, 2, 2), 2),
        (CUBE, 8, (2, 2, 2), 3),
        (CUBE, 32, (2, 4, 4), 3),
        (CUBE, 64, (4, 4, 4), 6),
    ],
)
def test_a_client_is_the_most_compact_slice_and_uses_the_links_that_it_has(
    torus: Torus, devices: int, box: tuple[int, ...], used: int
) -> None:
    assert slice_of(torus, devices) == box
    assert links(torus, devices) == used


@pytest.mark.parametrize(("name", "tb_s"), [("tpu_v5e", 51.2), ("tpu_v6e", 102.4)])
def test_a_whole_pod_reduces_at_the_rate_that_google_states(name: str, tb_s: float) -> None:
    each = collective_gb_s(hardware(name), 256)
    assert each is not None
    assert 256 * each / 1e3 == pytest.approx(tb_s)


@pytest.mark.parametrize(
    ("name", "links_each_way", "gb_s"), [("tpu_v5e", 4, 50), ("tpu_v6e", 4, 100), ("tpu_v7", 6, 100)]
)
def test_all_links_of_a_chip_have_the_bandwidth_of_the_datasheet(
    name: str, links_each_way: int, gb_s: float
) -> None:
    entry = hardware(name)
    assert entry.torus is not None
    assert (2 * entry.torus.axes, entry.scale_up_gb_s) == (links_each_way, gb_s)
    assert 2 * links_each_way * gb_s == {"tpu_v5e": 400, "tpu_v6e": 800, "tpu_v7": 1200}[name]


@pytest.mark.parametrize(
    ("name", "devices", "used"), [("tpu_v6e", 4, 2), ("tpu_v7", 8, 3), ("tpu_v7", 64, 6)]
)
def test_an_all_reduce_takes_its_closed_form(name: str, devices: int, used: int) -> None:
    seconds = operators(name, devices).all_reduce(np.array([SIZE]), devices)[0]
    sent = 2.0 * (devices - 1) / devices * SIZE
    assert seconds == pytest.approx(5e-6 + sent / (0.8 * used * 100e9))


def reduce_scattered(axes: tuple[int, ...], ring: bool) -> float:
    """The bytes over the busiest link of a reduce-scatter of one byte, whose parts take the axes in turn.

    Along a line the sums of a chunk come to its chip from both ends, and around a ring from both sides, with half a
    chunk each way from the chip opposite. Each chip on the way adds its own and sends one sum.
    """
    totals = dict.fromkeys(range(len(axes)), 0.0)
    for part in range(len(axes)):
        left = 1.0 / len(axes)
        for step in range(len(axes)):
            axis = (part + step) % len(axes)
            length, carried = axes[axis], dict[tuple[int, int], float]()
            for owner, sender in itertools.permutations(range(length), 2):
                ahead = (owner - sender) % length if ring else (length if owner < sender else 0)
                forward = 0.5 if ring and 2 * ahead == length else float(2 * ahead < length)
                for way, share in ((1, forward), (-1, 1.0 - forward)):
                    carried[sender, way] = carried.get((sender, way), 0.0) + share
            totals[axis] += max(carried.values()) * left / length
            left /= length
    return max(totals.values())


@pytest.mark.parametrize(
    ("torus", "devices"), [(FLAT, 2), (FLAT, 4), (FLAT, 16), (CUBE, 8), (CUBE, 64), (FLAT, 256)]
)
def test_no_link_carries_more_in_an_all_reduce_than_the_closed_form_has(torus: Torus, devices: int) -> None:
    box = tuple(size for size in slice_of(torus, devices) if size > 1)
    busiest = reduce_scattered(box, ring=min(slice_of(torus, devices)) >= torus.ring)
    closed_form = (devices - 1) / devices / links(torus, devices)
    assert busiest == pytest.approx(closed_form)


def exchanged(box: tuple[int, ...]) -> float:
    """The bytes over the busiest link where each chip sends its share to all others, one axis after another."""
    chips = list(itertools.product(*(range(size) for size in box)))
    carried: Counter[tuple[tuple[int, ...], tuple[int, ...]]] = Counter()
    for start, end in itertools.permutations(chips, 2):
        here = list(start)
        for axis in range(len(box)):
            while here[axis] != end[axis]:
                before = tuple(here)
                here[axis] += 1 if end[axis] > here[axis] else -1
                carried[before, tuple(here)] += 1
    return max(carried.values()) / len(chips)


@pytest.mark.parametrize(
    ("name", "devices"), [("tpu_v6e", 2), ("tpu_v6e", 4), ("tpu_v6e", 8), ("tpu_v7", 8), ("tpu_v6e", 16)]
)
def test_an_all_to_all_takes_what_crosses_the_middle(name: str, devices: int) -> None:
    entry = hardware(name)
    assert entry.torus is not None
    share = exchanged_share(entry, devices)
    assert share == pytest.approx(exchanged(slice_of(entry.torus, devices)))
    seconds = operators(name, devices).all_to_all(np.array([SIZE]), devices)[0]
    assert seconds == pytest.approx(5e-6 + share * SIZE / (0.8 * 100e9))


@pytest.mark.parametrize(
    ("name", "devices", "links_across"),
    [
        ("tpu_v6e", 256, 16 * 2),  # 16 × 16, closed: each row crosses the middle and comes back around
        ("tpu_v6e", 128, 8),  # 8 × 16, open: each of eight rows crosses it once
        ("tpu_v7", 64, 16 * 2),  # 4 × 4 × 4, closed
    ],
)
def test_a_closed_torus_has_twice_the_links_between_its_halves(
    name: str, devices: int, links_across: int
) -> None:
    """Each chip of one half sends half of its bytes to the other half."""
    assert exchanged_share(hardware(name), devices) == pytest.approx(devices / 2 * 0.5 / links_across)


def test_devices_that_reach_all_others_are_as_before() -> None:
    entry = hardware("h100_sxm")
    assert collective_gb_s(entry, 8) == entry.scale_up_gb_s
    assert exchanged_share(entry, 8) == 7 / 8


def compiled(*overrides: str) -> Any:
    load = ["pipeline=llm", "slo=none", "hardware=tpu_v6e", "workload=synthetic", "workload.requests=3"]
    return hf.compile(hf.compose([*load, "cluster.pools.llm.tensor_parallel=4", *overrides]))


def test_the_steps_of_a_client_are_shorter_by_what_its_all_reduces_gain() -> None:
    four, one = compiled(), compiled("hardware.torus=null")
    (found,) = [pool for pool in four.pools if pool.name == "llm"]
    (alone,) = [pool for pool in one.pools if pool.name == "llm"]
    gained = alone.client.cost.tokens_ps[8192] - found.client.cost.tokens_ps[8192]
    size = 8192 * 4096 * 2  # Llama-3-8B in bf16
    fraction = 0.61  # of the stand-in for hardware that was not measured
    expected = 2 * 32 * (2 * 3 / 4 * size) / (fraction * 100e9) * (1 - 1 / 2)
    assert gained == pytest.approx(expected * PS_PER_S, rel=1e-6)
    assert (
        "slice of 4 chips: 2 × 2, a mesh, which is open at its ends; all-reduces use 2 of 4 links"
        in " ".join(found.notes)
    )
    assert "slice of" not in " ".join(alone.notes)


def test_a_run_on_a_tpu_says_that_nothing_of_it_was_measured() -> None:
    program = compiled()
    notes = " ".join(next(pool.notes for pool in program.pools if pool.name == "llm"))
    assert "tpu_v6e is not measured; mean of the A100, H100, H200 and B200 fits" in notes
    assert "taken from H100 (host-side costs), not measured on this chip" in notes
    assert "power: not known" in notes
    kind = hf.simulate(program).summary["error"]["tpot_s"]["kind"]
    assert "tpu_v6e not measured, nor other accelerators of google" in kind


@pytest.mark.parametrize(
    ("override", "problem"),
    [("hardware.torus.axes=4", "hardware.torus.axes"), ("hardware.torus.ring=2", "hardware.torus.ring")],
)
def test_a_torus_that_cannot_be_is_refused(override: str, problem: str) -> None:
    with pytest.raises(hf.ConfigError, match=problem):
        compiled(override)


def test_a_slice_of_several_hosts_stays_on_its_own_links() -> None:
    # Sixteen v6e are 4 × 4, with two links at a corner; the all-reduce starts as that of eight.
    seconds = operators("tpu_v6e", 8).all_reduce(np.array([SIZE]), 16)[0]
    assert seconds == pytest.approx(5e-6 + 2 * 15 / 16 * SIZE / (0.8 * 2 * 100e9))
    words = ["pipeline=llm", "model=llama3_70b", "hardware=tpu_v7", "workload.requests=3", "network=hgx"]
    slices = ("cluster.pools.llm.tensor_parallel=64", "cluster.pools.llm.pipeline_parallel=4")
    (whole, ranks) = (
        str(hf.compile(hf.compose([*words, each, more])))
        for each, more in zip(slices, ("seed=1", "cluster.pools.llm.tensor_parallel=4"), strict=True)
    )
    assert "all-reduces use 6 of 6 links" in " ".join(whole.split())
    assert "as fitted to 8 devices, which is too short for so many" in " ".join(whole.split())
    for program in (whole, ranks):
        assert "NCCL" not in program


def test_sizes_between_those_that_were_measured_are_missing_on_a_torus_too() -> None:
    with pytest.raises(ConfigError, match=r"all_reduce\.3: missing"):
        operators("tpu_v6e", 8).all_reduce(np.array([SIZE]), 3)
