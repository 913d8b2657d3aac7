"""The engine lets transfers end and arrive when the network itself would."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import ClassVar
from unittest.mock import patch

import pytest
from heapdict import heapdict

from hermes_flow.machine.engine import Engine
from hermes_flow.machine.network_events import NetworkEvents
from hermes_flow.network.fabric import Fabric
from hermes_flow.network.topology import Topology
from hermes_flow.program.network import HostMemory
from hermes_flow.program.units import NEVER

HOSTS = tuple(HostMemory(f"host {number}", rate) for number, rate in enumerate((1.0, 3.0, 7.0)))
Sends = list[tuple[int, int, tuple[int, ...]]]  # (at, bytes, memories)


class Counted(heapdict):  # type: ignore[misc]
    """A heapdict that counts how often an entry is set."""

    sets: ClassVar[Counter[str]] = Counter()

    def __setitem__(self, key: object, value: object) -> None:
        Counted.sets["all"] += 1
        super().__setitem__(key, value)


class Sender:
    """A source of requests that sends each of ``sends`` at its instant."""

    def __init__(self, sends: Sends, fabric: Fabric, topology: Topology, events: NetworkEvents) -> None:
        self._sends = sends
        self._fabric = fabric
        self._topology = topology
        self._events = events
        self._place = 0

    def next_ns(self) -> int:
        return self._sends[self._place][0] if self._place < len(self._sends) else NEVER

    def fire(self, now_ns: int) -> None:
        _, size, places = self._sends[self._place]
        self._fabric.send(self._topology.memory_path(*places), size, self._place, now_ns)
        self._events.changed()
        self._place += 1


def run_by_engine(sends: Sends) -> object:
    topology = Topology(None, HOSTS)
    arrived: list[tuple[int, int]] = []
    fabric = Fabric(topology, lambda payload, now_ns: arrived.append((payload, now_ns)))
    with patch("hermes_flow.machine.engine.heapdict", Counted):
        engine = Engine()
    events = NetworkEvents(fabric, engine, rank=0)
    engine.attach(Sender(sends, fabric, topology, events), [events.ends, events.arrivals])
    engine.run()
    return arrived, fabric.records()


def run_by_itself(sends: Sends) -> object:
    topology = Topology(None, HOSTS)
    arrived: list[tuple[int, int]] = []
    fabric = Fabric(topology, lambda payload, now_ns: arrived.append((payload, now_ns)))
    for payload, (at, size, places) in enumerate(sends):
        while fabric.next_ns() < at:
            fabric.fire(fabric.next_ns())
        fabric.send(topology.memory_path(*places), size, payload, at)
    while fabric.next_ns() < NEVER:
        fabric.fire(fabric.next_ns())
    return arrived, fabric.records()


@pytest.mark.parametrize("seed", range(20))
def test_arrivals_and_totals_are_those_of_the_network_alone(seed: int) -> None:
    random = Random(seed)
    sends, at = [], 0
    for _ in range(30):
        at += random.choice([0, 1, 3, 30, 60, 200])
        places = random.choice([(0,), (1,), (2,), (0, 1), (1, 2)])
        sends.append((at, random.choice([1, 30, 60, 61, 90]), places))
    assert run_by_engine(sends) == run_by_itself(sends)


def test_transfers_that_meet_nobody_are_never_re_keyed() -> None:
    Counted.sets.clear()
    arrived, _ = run_by_engine([(0, 100, (0,)), (0, 90, (1,)), (200, 100, (0,))])  # type: ignore[misc]
    assert arrived == [(1, 30), (0, 100), (2, 300)]
    assert Counted.sets["all"] == 0


def test_ends_of_transfers_that_share_a_link_are_re_keyed_in_the_heapdict() -> None:
    """Both of 100 bytes have half of it from 60 on: 60 + 2·40 ns, and the rest of the second one is alone."""
    Counted.sets.clear()
    arrived, _ = run_by_engine([(0, 100, (0,)), (60, 100, (0,))])  # type: ignore[misc]
    assert arrived == [(0, 140), (1, 200)]
    assert Counted.sets["all"] == 2
