"""Keeps the links that transfers take: their rates, the streams over them, and what has moved over each of them."""

from __future__ import annotations

from collections.abc import Iterable

from hermes_flow.network.streams import BYTE_BITS, LinkUse, Stream
from hermes_flow.network.topology import Topology
from hermes_flow.recording.links import LinkRecord


class TakenLinks:
    """The links of a network that any transfer has taken; each is opened as the first one takes it."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._rates = topology.bytes_per_ns
        self._shares: dict[int, float] = {}  # link → what is left of its rate, where it has changed
        self._capacity: dict[int, int] = {}  # link → units a ns; below 0: what one sender can take at most
        self._uses: dict[int, LinkUse] = {}
        self._known: dict[tuple[int, ...], Stream] = {}  # with those that no transfer is under way over
        self._streams = 0  # that transfers are under way over
        self._closed: set[int] = set()  # links whose transfers were all known before the run
        self._touched_closed = False  # another transfer has taken one of them

    def records(self) -> tuple[LinkRecord, ...]:
        """Return the totals of every link that was used."""
        self._count_passed()
        return tuple(
            LinkRecord(
                name=self._topology.names[link],
                level=self._topology.levels[link],
                bytes_per_ns=self._rates[link],
                busy_ns=use.busy_ns,
                transfers=use.transfers,
                bytes=use.bytes,
                transfer_ns=use.transfer_ns,
                delay_ns=use.delay_ns,
                until_ns=use.until_ns,
            )
            for link, use in sorted(self._uses.items())
            if link >= 0
        )

    def _open(self, links: tuple[int, ...], most_bytes_per_ns: float | None) -> Stream:
        """Return a stream over ``links``, that no transfer has taken before."""
        uses = []
        for link in links:
            if link in self._closed:
                self._touched_closed = True
            if link not in self._uses:
                self._uses[link] = LinkUse()
                if link >= 0:
                    self._capacity[link] = units(self._rates[link] * self._shares.get(link, 1.0))
            uses.append(self._uses[link])
        most = min([self._rates[link] for link in links if link >= 0])
        if most_bytes_per_ns is not None and most_bytes_per_ns < most:
            most = most_bytes_per_ns
        least = min([self._capacity[link] for link in links])
        stream = self._known[links] = Stream(links, uses, least, most)
        return stream

    def _close(self, stream: Stream, now_ns: int) -> None:
        """End a stream that no transfer is left of."""
        stream.end = -1
        self._streams -= 1
        for use in stream.uses:
            del use.streams[stream.links]
            if not use.streams:
                use.busy_ns += now_ns - use.since_ns
        if stream.links[-1] < 0:  # belongs to the transfer that has ended
            del self._uses[stream.links[-1]], self._capacity[stream.links[-1]], self._known[stream.links]

    def _reached(self, touched: Iterable[int]) -> list[Stream]:
        """Return the streams on the links ``touched``, those that share a link with one of them, and so on."""
        links = [link for link in touched if link in self._uses]
        seen = set(links)
        found: dict[tuple[int, ...], Stream] = {}
        for link in links:  # grows as links are found
            for key, stream in self._uses[link].streams.items():
                if key not in found:
                    found[key] = stream
                    for other in key:
                        if other not in seen:
                            seen.add(other)
                            links.append(other)
        return list(found.values())

    def _count_passed(self) -> None:
        for stream in self._known.values():
            stream.count_passed()


def units(bytes_per_ns: float) -> int:
    """Return a rate in units of 2^-80 byte a nanosecond, which holds any rate above 2^-28 without rounding."""
    return int(bytes_per_ns * 2.0**BYTE_BITS)
