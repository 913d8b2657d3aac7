"""A transfer that is alone on its links is noted once, with the ends and totals of one that is followed."""

from __future__ import annotations

from random import Random

import pytest

from hermes_flow.network.fabric import Fabric
from hermes_flow.network.topology import Path, Topology
from hermes_flow.program.network import HostMemory
from hermes_flow.program.units import NEVER

HOSTS = tuple(HostMemory(f"host {number}", rate) for number, rate in enumerate((1.0, 3.0, 7.0)))


def moved(sends: list[tuple[int, int, tuple[int, ...], bool]], *, alone: bool) -> object:
    """Send (at, bytes, memories, whether ends of the same nanosecond come first); return arrivals and totals."""
    topology = Topology(None, HOSTS)
    arrived: list[tuple[int, int]] = []
    fabric = Fabric(topology, lambda payload, now_ns: arrived.append((payload, now_ns)))
    fabric.sends_alone = alone
    for payload, (at, size, places, ends_first) in enumerate(sends):
        while fabric.next_ns() < at + ends_first:
            fabric.fire(fabric.next_ns())
        fabric.send(topology.memory_path(*places), size, payload, at)
    while fabric.next_ns() < NEVER:
        fabric.fire(fabric.next_ns())
    return arrived, fabric.records()


@pytest.mark.parametrize("seed", range(40))
def test_arrivals_and_totals_are_those_of_transfers_that_are_followed(seed: int) -> None:
    random = Random(seed)
    sends, at = [], 0
    for _ in range(30):
        at += random.choice([0, 1, 3, 30, 60, 200])
        places = random.choice([(0,), (1,), (2,), (0, 1), (1, 2)])
        sends.append((at, random.choice([1, 30, 60, 61, 90]), places, random.random() < 0.5))
    assert moved(sends, alone=True) == moved(sends, alone=False)


def test_links_that_give_less_from_now_on_slow_a_lone_transfer_under_way() -> None:
    """After 40 of 100 bytes at 1 byte/ns the rest moves at a quarter: 40 + 60·4 ns."""
    topology = Topology(None, HOSTS)
    arrived: list[int] = []
    fabric = Fabric(topology, lambda payload, now_ns: arrived.append(now_ns))
    path: Path = topology.memory_path(0)
    fabric.send(path, 100, 0, 0)
    fabric.set_share(path.links, 0.25, 40)
    while fabric.next_ns() < NEVER:
        fabric.fire(fabric.next_ns())
    assert arrived == [280]
