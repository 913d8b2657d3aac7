"""The event loop: a total order of instants, one queue entry per resource, nothing fired that nobody waits for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tries import tries

from hermes_flow.errors import InternalError
from hermes_flow.machine.engine import Engine
from hermes_flow.program.units import NEVER

Log = list[tuple[str, int]]


@dataclass
class Schedule:
    """A source that fires at given instants, in order."""

    at: list[int]
    log: Log
    name: str = "arrival"

    def next_ns(self) -> int:
        return self.at[0] if self.at else NEVER

    def fire(self, now_ns: int) -> None:
        assert self.at.pop(0) == now_ns
        self.log.append((self.name, now_ns))


@dataclass
class Alarm:
    """A resource that fires at given instants; ``watched`` False: nobody waits for it."""

    name: str
    at: list[int]
    log: Log
    watched: bool = True
    settled: list[int] = field(default_factory=list)
    asked: int = 0

    def next_ns(self) -> int:
        self.asked += 1
        return self.at[0] if self.at and self.watched else NEVER

    def fire(self, now_ns: int) -> None:
        assert self.at.pop(0) == now_ns
        self.log.append((self.name, now_ns))

    def settle(self, now_ns: int) -> None:
        self.settled.append(now_ns)


def start(engine: Engine, source: Schedule, resources: Sequence[Alarm]) -> None:
    engine.attach(source, resources)
    for rank in range(len(resources)):
        engine.reschedule(rank)


def test_resources_fire_in_order_of_time_and_ties_in_order_of_rank() -> None:
    log: Log = []
    engine = Engine()
    resources = [Alarm("a", [5, 7, 9], log), Alarm("b", [3, 7], log), Alarm("c", [7, 7, 8], log)]
    start(engine, Schedule([], log), resources)
    engine.run()
    assert log == [("b", 3), ("a", 5), ("a", 7), ("b", 7), ("c", 7), ("c", 7), ("c", 8), ("a", 9)]
    assert engine.now_ns == 9
    assert engine.events == 8


def test_arrivals_go_before_everything_else_of_their_instant() -> None:
    log: Log = []
    engine = Engine()
    start(engine, Schedule([0, 4, 4, 9], log), [Alarm("a", [4, 6], log)])
    engine.run()
    assert log == [("arrival", 0), ("arrival", 4), ("arrival", 4), ("a", 4), ("a", 6), ("arrival", 9)]
    assert engine.events == 6


def test_a_resource_that_nobody_waits_for_never_fires_and_is_settled_at_the_end() -> None:
    log: Log = []
    engine = Engine()
    lonely = Alarm("lonely", [1, 2, 3], log, watched=False)
    start(engine, Schedule([2], log), [lonely, Alarm("a", [2], log)])
    engine.run()
    assert log == [("arrival", 2), ("a", 2)]
    assert lonely.settled == [NEVER]
    assert lonely.asked == 1  # when it was rescheduled: it was not queued, so never asked again


def test_an_engine_without_anything_to_do_ends_at_once() -> None:
    engine = Engine()
    idle = Alarm("idle", [], [])
    start(engine, Schedule([], []), [idle])
    engine.run()
    assert engine.events == 0
    assert idle.settled == [NEVER]


def test_an_engine_without_a_source_is_refused() -> None:
    with pytest.raises(RuntimeError, match="attach"):
        Engine().run()


def test_long_runs_settle_everything_now_and_then_and_report_progress() -> None:
    log: Log = []
    reported: list[int] = []
    engine = Engine()
    lonely = Alarm("lonely", [], log, watched=False)
    start(engine, Schedule(list(range(0, 200_000, 10)), log), [lonely])
    engine.run(progress=reported.append)
    assert engine.events == 20_000
    assert len(reported) >= 2
    assert lonely.settled == [*reported, NEVER]
    assert reported == sorted(reported)
    assert set(reported) <= set(range(0, 200_000, 10))


@dataclass
class Poke:
    """What a resource does when it fires: it changes other resources' instants and has them re-keyed."""

    engine: Engine
    alarms: list[Alarm]
    changes: dict[tuple[str, int], list[tuple[int, int | None]]]  # firing → (rank, its new instant)

    def apply(self, name: str, now_ns: int) -> None:
        for rank, at in self.changes.get((name, now_ns), []):
            self.alarms[rank].at = [] if at is None else [at]
            self.engine.reschedule(rank)


class Poking(Alarm):
    """An alarm that pokes others."""

    poke: Poke

    def fire(self, now_ns: int) -> None:
        super().fire(now_ns)
        self.poke.apply(self.name, now_ns)


def poking(
    changes: dict[tuple[str, int], list[tuple[int, int | None]]], *at: list[int]
) -> tuple[Engine, Log]:
    log: Log = []
    engine = Engine()
    alarms: list[Alarm] = [Poking(name, instants, log) for name, instants in zip("abc", at, strict=False)]
    poke = Poke(engine, alarms, changes)
    for alarm in alarms:
        assert isinstance(alarm, Poking)
        alarm.poke = poke
    start(engine, Schedule([], log), alarms)
    return engine, log


def test_rescheduling_moves_a_resource_forward_and_back() -> None:
    engine, log = poking({("a", 1): [(1, 2)], ("b", 2): [(2, 30)]}, [1], [10], [20])
    engine.run()
    assert log == [("a", 1), ("b", 2), ("c", 30)]


def test_rescheduling_takes_a_resource_off_the_queue_and_puts_it_back() -> None:
    engine, log = poking({("a", 1): [(1, None)], ("a", 5): [(1, 6)]}, [1, 5], [3])
    engine.run()
    assert log == [("a", 1), ("a", 5), ("b", 6)]


def test_work_for_the_present_instant_fires_within_it_whatever_its_rank() -> None:
    engine, log = poking({("c", 4): [(0, 4), (1, 4)]}, [9], [], [4, 5])
    engine.run()
    assert log == [("c", 4), ("a", 4), ("b", 4), ("c", 5)]


def test_a_resource_may_reschedule_itself_while_it_fires() -> None:
    engine, log = poking({("a", 2): [(0, 6)], ("b", 3): [(1, 8)]}, [2, 7], [1, 3, 4])
    engine.run()
    assert log == [("b", 1), ("a", 2), ("b", 3), ("a", 6), ("b", 8)]


@st.composite
def workloads(draw: st.DrawFn) -> tuple[list[int], list[list[int]], list[tuple[int, int, int, int]]]:
    """Arrivals, each resource's instants, and pokes (rank, number of its firing, whom, delay)."""
    instants = st.lists(st.integers(0, 12), max_size=8)
    arrivals = sorted(draw(instants))
    resources = draw(st.lists(instants.map(sorted), min_size=1, max_size=5))
    ranks = st.integers(0, len(resources) - 1)
    pokes = draw(st.lists(st.tuples(ranks, st.integers(0, 3), ranks, st.integers(0, 6)), max_size=6))
    return arrivals, resources, pokes


class Toy:
    """A resource with a sorted list of instants; its firings may add instants to others (or itself)."""

    def __init__(self, rank: int, at: list[int], pokes: list[tuple[int, int, int, int]], log: Log) -> None:
        self.rank = rank
        self.at = list(at)
        self.pokes = [poke for poke in pokes if poke[0] == rank]
        self.fired = 0
        self.log = log

    def next_ns(self) -> int:
        return self.at[0] if self.at else NEVER

    def due(self, now_ns: int) -> list[tuple[int, int]]:
        """Fire once; return (rank, instant) of the work this makes for others."""
        assert self.at.pop(0) == now_ns
        self.log.append((f"r{self.rank}", now_ns))
        made = [(whom, now_ns + delay) for _, number, whom, delay in self.pokes if number == self.fired]
        self.fired += 1
        return made

    def add(self, at_ns: int) -> None:
        self.at.append(at_ns)
        self.at.sort()


class EngineToy(Toy):
    engine: Engine
    toys: list[EngineToy]

    def fire(self, now_ns: int) -> None:
        for whom, at_ns in self.due(now_ns):
            self.toys[whom].add(at_ns)
            self.engine.reschedule(whom)

    def settle(self, now_ns: int) -> None:
        assert not self.at
        assert now_ns == NEVER


def naive_run(arrivals: list[int], toys: list[Toy], log: Log) -> None:
    """Look at everything at every turn: the earliest instant, arrivals first, then the lowest rank."""
    pending = list(arrivals)
    while True:
        turns = [(at, -1) for at in pending[:1]] + [(toy.at[0], toy.rank) for toy in toys if toy.at]
        if not turns:
            return
        now, rank = min(turns)
        if rank < 0:
            pending.pop(0)
            log.append(("arrival", now))
            continue
        for whom, at in toys[rank].due(now):
            toys[whom].add(at)


@dataclass
class Restless(Alarm):
    """A resource that does nothing when it fires, and wants to fire again at the same instant."""

    def fire(self, now_ns: int) -> None:
        self.log.append((self.name, now_ns))


@dataclass
class Waking(Alarm):
    """A resource that does nothing when it fires but wake another one."""

    wake: Callable[[], None] = lambda: None

    def fire(self, now_ns: int) -> None:
        super().fire(now_ns)
        self.wake()


def test_a_resource_that_fires_without_end_at_one_instant_is_named() -> None:
    log: Log = []
    engine = Engine()
    resources = [Alarm("a", [3, 9], log), Restless("b", [7_000_000_000], log)]
    engine.attach(Schedule([1], log), resources, lambda rank: f"client {resources[rank].name}")
    for rank in range(2):
        engine.reschedule(rank)
    with pytest.raises(InternalError) as caught:
        engine.run()
    assert str(caught.value).startswith(
        "internal error: at 7.000000000 s of simulated time client b fired 10,000 times without any progress. "
    )
    assert log[:3] == [("arrival", 1), ("a", 3), ("a", 9)]
    assert len(log) <= 30_000


def test_two_resources_that_wake_each_other_without_end_are_found() -> None:
    engine = Engine()
    one, two = Waking("one", [5], []), Waking("two", [], [])

    def waking(rank: int, other: Waking) -> Callable[[], None]:
        def wake() -> None:
            other.at.append(5)
            engine.reschedule(rank)

        return wake

    one.wake, two.wake = waking(1, two), waking(0, one)
    engine.attach(Schedule([], []), [one, two])
    engine.reschedule(0)
    with pytest.raises(InternalError, match=r"resource [01] fired 10,000 times"):
        engine.run()


def test_an_instant_at_which_many_resources_and_arrivals_have_something_to_do_is_no_fault() -> None:
    log: Log = []
    engine = Engine()
    resources = [Alarm(str(number), [5, 5, 6], log) for number in range(15_000)]
    start(engine, Schedule([5] * 25_000, log), resources)
    engine.run()
    assert engine.events == len(log) == 25_000 + 3 * 15_000


@settings(max_examples=tries(100, of=300))
@given(workload=workloads())
def test_equals_a_loop_that_looks_at_everything_at_every_turn(
    workload: tuple[list[int], list[list[int]], list[tuple[int, int, int, int]]],
) -> None:
    arrivals, instants, pokes = workload
    expected: Log = []
    naive_run(arrivals, [Toy(rank, at, pokes, expected) for rank, at in enumerate(instants)], expected)

    log: Log = []
    engine = Engine()
    toys = [EngineToy(rank, at, pokes, log) for rank, at in enumerate(instants)]
    for toy in toys:
        toy.engine, toy.toys = engine, toys
    engine.attach(Schedule(list(arrivals), log), toys)
    for rank in range(len(toys)):
        engine.reschedule(rank)
    engine.run()
    assert log == expected
    assert engine.events == len(log)
    assert [instant for _, instant in log] == sorted(instant for _, instant in log)
