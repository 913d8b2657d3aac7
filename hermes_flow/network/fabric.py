"""Transfers that share links max-min fairly, re-timed whenever one joins or leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush

from hermes_flow.network.topology import Path, Topology
from hermes_flow.program.units import NEVER
from hermes_flow.recording.links import LinkRecord


def max_min_rates(flows: dict[int, tuple[int, ...]], capacity: dict[int, float]) -> dict[int, float]:
    """Return each flow's max-min fair rate: progressive filling.

    ``flows`` maps a flow to its links, ``capacity`` a link to its rate. The link with the smallest fair share
    is filled first, its flows are fixed, and so on.
    """
    left = dict(capacity)
    open_flows = dict(flows)
    rates: dict[int, float] = {}
    while open_flows:
        users: dict[int, int] = {}
        for links in open_flows.values():
            for link in links:
                users[link] = users.get(link, 0) + 1
        share, bottleneck = min((left[link] / count, link) for link, count in users.items())
        for flow in [flow for flow, links in open_flows.items() if bottleneck in links]:
            rates[flow] = share
            for link in open_flows.pop(flow):
                left[link] = max(0.0, left[link] - share)
    return rates


@dataclass(slots=True)
class _Totals:
    busy_ns: int = 0
    transfers: int = 0
    bytes: int = 0
    transfer_ns: int = 0
    delay_ns: int = 0
    until_ns: int = 0


class Fabric:
    """All transfers under way; an engine resource.

    ``done(payload, now_ns)`` is called as a transfer's last byte arrives, its latency included.
    """

    def __init__(self, topology: Topology, done: Callable[[int, int], None]) -> None:
        self._topology = topology
        self._capacity = topology.bytes_per_ns
        self._done = done
        self._links: dict[int, tuple[int, ...]] = {}  # flow → links
        self._left: dict[int, float] = {}  # flow → bytes
        self._rate: dict[int, float] = {}
        self._payload: dict[int, tuple[int, int]] = {}  # flow → (payload, latency)
        self._flows = 0
        self._now_ns = 0
        self._next_ns = NEVER
        self._arriving: list[tuple[int, int, int]] = []  # (at, order, payload): sent, on the way
        self._own: dict[int, float] = {}  # −flow → what its sender can take at most, as a link of its own
        self._since: dict[int, tuple[int, int]] = {}  # flow → (sent at, ns it would take alone)
        self._totals: dict[int, _Totals] = {}

    def send(
        self, path: Path, size: int, payload: int, now_ns: int, most_bytes_per_ns: float | None = None
    ) -> None:
        """Start moving ``size`` bytes; links shared with others are shared fairly from now on.

        ``most_bytes_per_ns`` is what the sender can take at most, if that is less than the links give.
        """
        self._flows += 1
        if not path.links or size <= 0:
            heappush(self._arriving, (now_ns + path.latency_ns, self._flows, payload))
            return
        self._progress(now_ns)
        self._links[self._flows] = path.links
        if most_bytes_per_ns is not None:
            self._own[-self._flows] = most_bytes_per_ns
            self._links[self._flows] += (-self._flows,)
        self._left[self._flows] = float(size)
        self._payload[self._flows] = (payload, path.latency_ns)
        most = min(self._capacity[link] for link in path.links)
        alone_ns = round(size / (most if most_bytes_per_ns is None else min(most, most_bytes_per_ns)))
        self._since[self._flows] = (now_ns, alone_ns)
        for link in path.links:
            totals = self._totals.setdefault(link, _Totals())
            totals.transfers += 1
            totals.bytes += size
        self._share()

    def next_ns(self) -> int:
        """Return when the next transfer ends or arrives."""
        at = self._arriving[0][0] if self._arriving else NEVER
        return min(at, self._next_ns)

    def fire(self, now_ns: int) -> None:
        """End what is due: free its links, and deliver what has arrived."""
        if self._next_ns <= now_ns:
            self._progress(now_ns)
            ended = [flow for flow, left in self._left.items() if left <= self._rate[flow] * 0.5]
            for flow in ended:
                payload, latency_ns = self._payload.pop(flow)
                heappush(self._arriving, (now_ns + latency_ns, flow, payload))
                self._note_end(flow, now_ns)
                del self._links[flow], self._left[flow], self._rate[flow]
            self._share()
        while self._arriving and self._arriving[0][0] <= now_ns:
            self._done(heappop(self._arriving)[2], now_ns)

    def settle(self, now_ns: int) -> None:
        """Nothing happens between the instants that others wait for."""

    def records(self) -> tuple[LinkRecord, ...]:
        """Return the totals of every link that was used."""
        return tuple(
            LinkRecord(
                name=self._topology.names[link],
                level=self._topology.levels[link],
                bytes_per_ns=self._capacity[link],
                busy_ns=totals.busy_ns,
                transfers=totals.transfers,
                bytes=totals.bytes,
                transfer_ns=totals.transfer_ns,
                delay_ns=totals.delay_ns,
                until_ns=totals.until_ns,
            )
            for link, totals in sorted(self._totals.items())
        )

    def _note_end(self, flow: int, now_ns: int) -> None:
        sent_ns, alone_ns = self._since.pop(flow)
        self._own.pop(-flow, None)
        for link in self._links[flow]:
            if link < 0:
                continue
            self._totals[link].until_ns = now_ns
            self._totals[link].transfer_ns += now_ns - sent_ns
            self._totals[link].delay_ns += max(0, now_ns - sent_ns - alone_ns)

    def _progress(self, now_ns: int) -> None:
        """Move bytes up to now."""
        passed = now_ns - self._now_ns
        self._now_ns = now_ns
        if passed and self._left:
            for flow, left in self._left.items():
                self._left[flow] = left - self._rate[flow] * passed
            for link in {link for links in self._links.values() for link in links if link >= 0}:
                self._totals[link].busy_ns += passed

    def _share(self) -> None:
        """Set every transfer's rate, and when the next one ends: at the nanosecond nearest to its last byte."""
        self._next_ns = NEVER
        if not self._links:
            return
        used = {link for links in self._links.values() for link in links}
        self._rate = max_min_rates(
            self._links, {link: self._own[link] if link < 0 else self._capacity[link] for link in used}
        )
        soonest = min(left / self._rate[flow] for flow, left in self._left.items())
        self._next_ns = self._now_ns + max(0, round(soonest))
