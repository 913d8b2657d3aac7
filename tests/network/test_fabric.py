"""When transfers arrive: closed forms, and random sets against exact fluids."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import cast

import pytest
from oracles.fluid_network import Transfer, simulate_fluid
from pure_core import needs_pure_core

from hermes_flow.network.fabric import Fabric
from hermes_flow.network.max_min import max_min_rates
from hermes_flow.network.topology import Path, Topology
from hermes_flow.program.units import NEVER

LINK = (0,)


@dataclass(frozen=True)
class Links:
    """As much of a topology as a fabric asks for."""

    bytes_per_ns: list[float]

    @property
    def levels(self) -> list[str]:
        return ["node"] * len(self.bytes_per_ns)

    @property
    def names(self) -> list[str]:
        return [f"link {number}" for number in range(len(self.bytes_per_ns))]


@dataclass(frozen=True)
class Run:
    """What a fabric delivered: instants by number of the transfer, and their order."""

    fabric: Fabric
    arrived_ns: dict[int, int]
    order: list[int]


def deliver(
    transfers: list[Transfer],
    *bytes_per_ns: float,
    latency_ns: int = 0,
    changes: Sequence[tuple[int, int, float]] = (),
) -> Run:
    """Send each transfer when it starts, and fire whenever the fabric asks for it, as the engine does.

    ``changes`` are (instant, link, the share of its rate that is left from there on).
    """
    to_come = sorted(changes)
    arrived: dict[int, int] = {}

    def done(payload: int, now_ns: int) -> None:
        assert payload not in arrived
        arrived[payload] = now_ns

    fabric = Fabric(cast(Topology, Links(list(bytes_per_ns))), done)
    sends = sorted(range(len(transfers)), key=lambda number: transfers[number].start_ns)
    now = 0
    while sends or to_come or fabric.next_ns() < NEVER:
        at = transfers[sends[0]].start_ns if sends else NEVER
        change = to_come[0][0] if to_come else NEVER
        assert fabric.next_ns() >= now
        now = min(at, fabric.next_ns(), change)
        if at > now < fabric.next_ns():
            _, link, share = to_come.pop(0)
            fabric.set_share([link], share, now)
        elif at == now:
            number = sends.pop(0)
            fabric.send(Path(transfers[number].links, latency_ns), transfers[number].size, number, now)
        else:
            fabric.fire(now)
    return Run(fabric, arrived, list(arrived))


@pytest.mark.parametrize(("size", "takes"), [(450_000, 1000), (450_100, 1000), (450_300, 1001), (450, 1)])
def test_one_transfer_takes_its_bytes_over_the_bandwidth_to_the_nearest_nanosecond(
    size: int, takes: int
) -> None:
    assert deliver([Transfer(70, size, LINK)], 450.0).arrived_ns == {0: 70 + takes}


def test_the_narrowest_link_of_the_path_counts() -> None:
    assert deliver([Transfer(0, 1000, (0, 1, 2))], 50.0, 10.0, 20.0).arrived_ns == {0: 100}


def test_two_equal_transfers_on_a_link_take_twice_as_long() -> None:
    assert deliver([Transfer(5, 1000, LINK)] * 2, 10.0).arrived_ns == {0: 205, 1: 205}


def test_transfers_on_links_of_their_own_do_not_meet() -> None:
    run = deliver([Transfer(0, 1000, (0,)), Transfer(0, 1000, (1,))], 10.0, 10.0)
    assert run.arrived_ns == {0: 100, 1: 100}


def test_who_joins_half_way_slows_the_other_down_from_then_on() -> None:
    # 500 of 1000 bytes are over when the second comes; both go at half speed until the first one ends.
    run = deliver([Transfer(0, 1000, LINK), Transfer(50, 1000, LINK)], 10.0)
    assert run.arrived_ns == {0: 150, 1: 200}


def test_who_leaves_gives_his_share_to_the_others() -> None:
    run = deliver([Transfer(0, 100, LINK), Transfer(0, 1000, LINK)], 10.0)
    assert run.arrived_ns == {0: 20, 1: 110}


def test_who_is_held_up_elsewhere_leaves_the_rest_of_a_link_to_others() -> None:
    run = deliver([Transfer(0, 100, (0, 1)), Transfer(0, 900, (0,))], 10.0, 1.0)
    assert run.arrived_ns == {0: 100, 1: 100}


def test_a_latency_comes_on_top_and_holds_no_link() -> None:
    run = deliver([Transfer(0, 1000, LINK), Transfer(100, 1000, LINK)], 10.0, latency_ns=5000)
    assert run.arrived_ns == {0: 5100, 1: 5200}
    assert run.fabric.records()[0].busy_ns == 200


@pytest.mark.parametrize("transfer", [Transfer(40, 1000, ()), Transfer(40, 0, LINK)])
def test_without_links_or_bytes_only_the_latency_is_left(transfer: Transfer) -> None:
    assert deliver([transfer], 10.0).arrived_ns == {0: 40}
    run = deliver([transfer], 10.0, latency_ns=7)
    assert run.arrived_ns == {0: 47}
    assert run.fabric.records() == ()


def test_whoever_sends_as_another_ends_does_not_hold_him_up() -> None:
    run = deliver([Transfer(0, 1000, LINK), *[Transfer(at, 10, LINK) for at in range(100, 110)]], 10.0)
    assert run.arrived_ns == {0: 100, **{number: 100 + number for number in range(1, 11)}}


def test_equal_transfers_end_together_and_arrive_in_the_order_sent() -> None:
    for count in (2, 3, 7, 100, 300):
        run = deliver([Transfer(3, 12_345, LINK)] * count, 1.7)
        ends = set(run.arrived_ns.values())
        assert run.order == list(range(count))
        assert len(ends) == 1
        assert ends.pop() == pytest.approx(3 + count * 12_345 / 1.7, abs=1)


def test_a_transfer_of_hours_ends_at_its_nanosecond() -> None:
    size = 3_600_000_000_007 * 3
    assert deliver([Transfer(11, size, LINK)], 3.0).arrived_ns == {0: 11 + 3_600_000_000_007}


def test_random_transfers_equal_exact_fluids() -> None:
    rng = random.Random(3)
    met = 0
    for _ in range(250):
        transfers, capacity = random_transfers(rng)
        latency_ns = rng.choice([0, 0, 20_000])
        run = deliver(transfers, *capacity, latency_ns=latency_ns)
        ends = simulate_fluid(transfers, {link: Fraction(rate) for link, rate in enumerate(capacity)})
        for number, (transfer, end) in enumerate(zip(transfers, ends, strict=True)):
            instants = [other.start_ns for other in transfers] + ends
            retimed = sum(transfer.start_ns <= instant <= end for instant in instants)
            assert abs(run.arrived_ns[number] - latency_ns - end) <= 2 * retimed
            met += end - transfer.start_ns > 1.5 * alone_ns(transfer, capacity)
        check_links(run, transfers, capacity, ends)
    assert met > 1000  # links are shared indeed


def test_random_transfers_over_links_that_fail_equal_exact_fluids() -> None:
    rng = random.Random(5)
    later = 0
    for _ in range(60):
        transfers, capacity = random_transfers(rng)
        changes = random_failures(rng, transfers, len(capacity))
        run = deliver(transfers, *capacity, changes=changes)
        exact = {link: Fraction(rate) for link, rate in enumerate(capacity)}
        # Whole nanoseconds: what ends just before a link fails in one account may end long after it in the other.
        around = [
            simulate_fluid(
                transfers,
                exact,
                [(max(0, at + shift), link, Fraction(capacity[link] * share)) for at, link, share in changes],
            )
            for shift in (-3, 0, 3)
        ]
        for number, ends in enumerate(zip(*around, strict=True)):
            assert min(ends) - 40 <= run.arrived_ns[number] <= max(ends) + 40
        later += around[1] != simulate_fluid(transfers, exact)
    assert later > 30


def random_failures(
    rng: random.Random, transfers: list[Transfer], links: int
) -> list[tuple[int, int, float]]:
    """Draw times in which links give less or nothing; all of them come back."""
    changes = []
    for link in rng.sample(range(links), rng.randint(1, links)):
        at = rng.randint(0, transfers[0].start_ns + 500)
        for _ in range(rng.randint(1, 2)):
            until = at + rng.randint(1, 2000)
            changes += [(at, link, rng.choice([0.0, 0.5, 0.01])), (until, link, 1.0)]
            at = until + rng.randint(1, 100)
    return changes


def test_what_is_under_way_over_a_link_that_gives_nothing_waits_until_it_is_back() -> None:
    # 500 of 1000 bytes are over at 50; nothing moves until 350.
    run = deliver([Transfer(0, 1000, LINK)], 10.0, changes=[(50, 0, 0.0), (350, 0, 1.0)])
    assert run.arrived_ns == {0: 400}
    half = deliver([Transfer(0, 1000, LINK)], 10.0, changes=[(50, 0, 0.5), (80, 0, 1.0)])
    assert half.arrived_ns == {0: 115}


def alone_ns(transfer: Transfer, capacity: list[float]) -> float:
    return transfer.size / min(capacity[link] for link in transfer.links)


def random_transfers(rng: random.Random) -> tuple[list[Transfer], list[float]]:
    """Draw up to 16 transfers, some of them at one instant, over up to 6 links."""
    capacity = [rng.choice([1.0, 3.0, 50.0, 450.0, rng.uniform(0.1, 900)]) for _ in range(rng.randint(1, 6))]
    spread = rng.choice([0, 20, 3000])
    transfers = []
    for _ in range(rng.randint(1, 16)):
        links = rng.sample(range(len(capacity)), rng.randint(1, len(capacity)))
        size = rng.choice([1, 100, 1000, rng.randint(1, 200_000)])
        transfers.append(Transfer(rng.randint(0, spread), size, tuple(links)))
    return transfers, capacity


def check_links(run: Run, transfers: list[Transfer], capacity: list[float], ends: list[Fraction]) -> None:
    """Check each link's bytes and the time that anything moved over it."""
    records = {record.name: record for record in run.fabric.records()}
    for link, rate in enumerate(capacity):
        users = [number for number, transfer in enumerate(transfers) if link in transfer.links]
        record = records.pop(f"link {link}", None)
        if not users:
            assert record is None
            continue
        assert record is not None
        assert record.bytes == sum(transfers[number].size for number in users)
        assert record.bytes_per_ns == rate
        busy, until = Fraction(0), Fraction(0)
        for number in sorted(users, key=lambda number: transfers[number].start_ns):
            start = max(until, Fraction(transfers[number].start_ns))
            until = max(until, ends[number])
            busy += max(Fraction(0), until - start)
        assert abs(record.busy_ns - busy) <= 4 * len(transfers)
        assert record.bytes <= rate * (record.busy_ns + 4 * len(transfers))
    assert not records


def test_nothing_is_left_behind() -> None:
    rng = random.Random(4)
    for _ in range(100):
        transfers, capacity = random_transfers(rng)
        run = deliver(transfers, *capacity)
        assert sorted(run.order) == list(range(len(transfers)))
        assert run.fabric.next_ns() == NEVER
        assert all(at >= transfers[number].start_ns for number, at in run.arrived_ns.items())


def test_thousands_on_a_link_end_as_processor_sharing_has_them_end() -> None:
    # All start together: as the k-th smallest ends, each of those left has received as many bytes as it has.
    rng = random.Random(5)
    sizes = sorted(rng.randint(1, 10**9) for _ in range(3000))
    run = deliver([Transfer(0, size, LINK) for size in sizes], 2.0)
    end, before = Fraction(0), 0
    for number, size in enumerate(sizes):
        end += Fraction((size - before) * (len(sizes) - number), 2)
        before = size
        assert abs(run.arrived_ns[number] - end) <= 6  # the sum of 1/n halves of a nanosecond
    assert sum(sizes) / 2 == pytest.approx(run.fabric.records()[0].busy_ns, abs=6)


@needs_pure_core
def test_a_change_recomputes_only_the_transfers_it_can_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[set[int]] = []

    def rates(
        paths: Sequence[tuple[int, ...]], counts: Sequence[int], capacity: Mapping[int, int]
    ) -> list[int]:
        asked.append({link for links in paths for link in links})
        return max_min_rates(paths, counts, capacity)

    monkeypatch.setattr("hermes_flow.network.fabric.max_min_rates", rates)
    near = [Transfer(at, 10_000, links) for at, links in enumerate([(0, 1), (1, 2), (0, 1), (2,)] * 20)]
    far = [Transfer(at, 10_000, links) for at, links in enumerate([(3, 4), (4, 5), (3,)] * 20)]
    capacity = [7.0, 11.0, 13.0, 2.0, 3.0, 5.0]
    together = deliver(near + far, *capacity)
    assert asked
    assert all(links <= {0, 1, 2} or links <= {3, 4, 5} for links in asked)
    alone = deliver(near, *capacity)
    for number in range(len(near)):  # the nearest nanosecond is counted from the last event anywhere
        assert abs(together.arrived_ns[number] - alone.arrived_ns[number]) <= 1


def test_a_transfer_that_outlives_the_clock_is_an_error() -> None:
    with pytest.raises(OverflowError):
        deliver([Transfer(0, 10**12, LINK)], 1e-30)
    with pytest.raises(OverflowError):
        deliver([Transfer(0, 10**12, LINK)], 1e-20)
