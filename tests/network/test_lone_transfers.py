"""A transfer that is alone on its links is noted once, with the ends and totals of one that is followed."""

from __future__ import annotations

from random import Random

import pytest

from hermes_flow.network.fabric import Fabric
from hermes_flow.network.topology import Path, Topology
from hermes_flow.program.network import HostMemory
from hermes_flow.program.units import NEVER

HOSTS = tuple(HostMemory(f"host {number}", rate) for number, rate in enumerate((1.0, 3.0, 7.0)))


def moved(
    sends: list[tuple[int, int, tuple[int, ...], bool]], *, alone: bool, at_once: bool = False
) -> object:
    """Send (at, bytes, memories, whether ends of the same nanosecond come first); return arrivals and totals.

    With ``at_once`` those move at once that are over before the next one.
    """
    topology = Topology(None, HOSTS)
    arrived: list[tuple[int, int]] = []
    fabric = Fabric(topology, lambda payload, now_ns: arrived.append((payload, now_ns)))
    fabric.sends_alone = alone
    for payload, (at, size, places, ends_first) in enumerate(sends):
        while fabric.next_ns() < at + ends_first:
            fabric.fire(fabric.next_ns())
        path, later = topology.memory_path(*places), sends[payload + 1 :]
        before = min(later[0][0] if later else NEVER, fabric.next_ns())
        end = fabric.pass_alone(path, size, at, before) if at_once else -1
        if end < 0:
            fabric.send(path, size, payload, at)
        else:
            arrived.append((payload, end))
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
    followed = moved(sends, alone=False)
    assert moved(sends, alone=True) == followed
    assert moved(sends, alone=True, at_once=True) == followed


def test_transfers_that_move_at_once_are_in_the_totals_with_their_own_sizes_and_rates() -> None:
    """100 and 30 bytes at 1 byte/ns take 100 and 30 ns, then 10 bytes at a quarter take 40 ns instead of 10."""
    topology = Topology(None, HOSTS)
    fabric = Fabric(topology, lambda payload, now_ns: None)
    path = topology.memory_path(0)
    assert fabric.pass_alone(path, 100, 0, NEVER) == 100
    assert fabric.pass_alone(path, 30, 200, NEVER) == 230
    fabric.set_share(path.links, 0.25, 300)
    assert fabric.pass_alone(path, 10, 400, NEVER) == 440
    for _ in range(2):  # asking changes nothing
        (record,) = fabric.records()
        assert (record.transfers, record.bytes, record.busy_ns) == (3, 140, 170)
        assert (record.transfer_ns, record.delay_ns, record.until_ns) == (170, 30, 440)


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
