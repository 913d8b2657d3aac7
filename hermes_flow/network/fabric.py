"""Simulates transfers that share links max-min fairly; each start or end changes the rates of the others.

Transfers over the same links have the same rate at any time. They form a *stream*, and one number tells how much each
of them has received since the stream began. So a transfer that joins or leaves costs as much as the streams that it
can reach over shared links, however many transfers are under way.

Rates and bytes are whole multiples of 2^-80 byte. Sums of them are exact, so results do not depend on how many events
lie between the start and the end of a transfer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush

from hermes_flow.network.max_min import max_min_rates
from hermes_flow.network.streams import BYTE_BITS, NS_BITS, Lone, Stream
from hermes_flow.network.taken_links import TakenLinks, units
from hermes_flow.network.topology import Path, Topology
from hermes_flow.program.units import NEVER

_BYTE, _NS = BYTE_BITS, NS_BITS  # short names for what stands in every formula
_HALF_NS = 1 << (_NS - 1)
_PART_NS = (1 << _NS) - 1
_SPARE_ENTRIES = 64


class Fabric(TakenLinks):
    """All running transfers, as a resource of the engine.

    ``done(payload, now_ns)`` is called as a transfer's last byte arrives, its latency included.
    """

    def __init__(self, topology: Topology, done: Callable[[int, int], None]) -> None:
        super().__init__(topology)
        self._done = done
        self._may_stall = False  # a link may give nothing for a time
        self._ends: list[tuple[int, int, Stream]] = []  # outdated where the end is not the stream's any more
        self._entries = 0
        # By transfer: (payload, latency, sent at, ns it would take alone).
        self._payload: dict[int, tuple[int, int, int, int]] = {}
        self._sent = 0
        self._next_ns = NEVER
        self._arriving: list[tuple[int, int, int]] = []  # (at, transfer, payload): sent, on the way
        self.sends_alone = True  # False where links may fail: then all transfers under way are looked at
        self._fired_ns = -1
        self._found_half = False  # an end lay half way between two nanoseconds: what else moves decides on it

    def send(
        self, path: Path, size: int, payload: int, now_ns: int, most_bytes_per_ns: float | None = None
    ) -> None:
        """Start moving ``size`` bytes; shared links are divided fairly from now on.

        ``most_bytes_per_ns`` is what the sender can take at most, if that is less than the links give.
        """
        self._sent = transfer = self._sent + 1
        links = path.links
        if not links or size <= 0:
            heappush(self._arriving, (now_ns + path.latency_ns, transfer, payload))
            return
        if most_bytes_per_ns is not None:
            self._capacity[-transfer] = units(most_bytes_per_ns)
            links = (*links, -transfer)
        stream = self._known.get(links) or self._open(links, most_bytes_per_ns)
        if (
            self.sends_alone
            and most_bytes_per_ns is None
            and not path.latency_ns
            and self._send_alone(stream, size, transfer, payload, now_ns)
        ):
            return
        for use in stream.uses:
            if use.lone is not None:
                self._share_lone(use.lone, now_ns)
        self._payload[transfer] = (payload, path.latency_ns, now_ns, round(size / stream.most))
        if stream.waiting:
            stream.advance(now_ns)
            alone = stream.is_alone()
        else:
            self._streams += 1
            alone = stream.begin(now_ns)
        heappush(stream.waiting, (stream.received + (size << _BYTE), transfer))
        for use in stream.uses:
            use.transfers += 1
            use.bytes += size
        if alone:
            self._set_alone(stream)
            self._find_next(now_ns)
        else:
            self._share(self._reached(links), now_ns)

    def _send_alone(self, stream: Stream, size: int, transfer: int, payload: int, now_ns: int) -> bool:
        """Move bytes over idle links, as most transfers do; return False if that is not so, and nothing is done.

        Until somebody else comes to these links, when it ends is known: all that follows is noted here.
        """
        for use in stream.uses:
            if use.streams or (use.lone is not None and self._is_under_way(use.lone, now_ns)):
                return False
        if size != stream.alone_size or stream.least != stream.alone_least:
            stream.note_alone(size)
        took_ns = stream.alone_ns
        if not took_ns or now_ns + took_ns >= NEVER:
            return False
        lone = Lone(stream, (now_ns + took_ns, transfer, payload), size, now_ns, stream.alone_late_ns)
        for use in stream.uses:
            use.lone = lone
            use.count_lone(lone, 1)
        heappush(self._arriving, lone.entry)
        return True

    def pass_alone(self, path: Path, size: int, now_ns: int, before_ns: int) -> int:
        """Move bytes at once that meet nobody, as nothing else happens before ``before_ns``; return when they arrive.

        −1 where they could meet somebody, or arrive later, and nothing is done.
        """
        links = path.links
        if not links or size <= 0 or not self.sends_alone:
            return -1
        stream = self._known.get(links) or self._open(links, None)
        for use in stream.uses:
            if use.streams:
                return -1
            if use.lone is not None:
                if self._is_under_way(use.lone, now_ns):
                    return -1
                use.lone = None
        if size != stream.alone_size or stream.least != stream.alone_least:
            stream.note_alone(size)
        took_ns = stream.alone_ns
        end_ns = now_ns + took_ns
        at_ns = end_ns + path.latency_ns
        if not took_ns or at_ns >= before_ns:
            return -1
        self._sent += 1
        stream.passed += 1
        stream.passed_until_ns = end_ns
        return at_ns

    def _is_under_way(self, lone: Lone, now_ns: int) -> bool:
        """Return whether a lone transfer has not ended: at its last instant that depends on who comes first."""
        end_ns = lone.entry[0]
        return end_ns > now_ns or (end_ns == now_ns and self._fired_ns != now_ns)

    def _share_lone(self, lone: Lone, now_ns: int) -> None:
        """Let a transfer that was alone on its links be one that others can come to, as it would be by now."""
        stream = lone.stream
        for use in stream.uses:
            if use.lone is lone:
                use.lone = None
        if not self._is_under_way(lone, now_ns):
            return
        _, transfer, payload = lone.entry
        self._arriving.remove(lone.entry)
        heapify(self._arriving)
        for use in stream.uses:
            use.count_lone(lone, -1)
            use.transfers += 1
            use.bytes += lone.size
        self._payload[transfer] = (payload, 0, lone.since_ns, round(lone.size / stream.most))
        self._streams += 1
        stream.begin(lone.since_ns)
        heappush(stream.waiting, (lone.size << _BYTE, transfer))
        self._set_alone(stream)

    def set_share(self, links: Sequence[int], share: float, now_ns: int) -> None:
        """Let links give ``share`` of their rate from now on. At 0 what is under way over them waits."""
        self._may_stall |= not share
        for use in list(self._uses.values()):
            if use.lone is not None:
                self._share_lone(use.lone, now_ns)
        changed = [link for link in links if self._shares.get(link, 1.0) != share]
        for link in changed:
            self._shares[link] = share
            if link in self._capacity:
                self._capacity[link] = units(self._rates[link] * share)
        for stream in self._known.values():
            if any(link in changed for link in stream.links):
                stream.least = min([self._capacity[link] for link in stream.links])
        self._share(self._reached(changed), now_ns)

    # What transfers that are known before a run need; see network/known_transfers.py.

    def tell(self, done: Callable[[int, int], None]) -> Callable[[int, int], None]:
        """Call ``done`` for transfers that arrive from now on; return what was called until now."""
        before, self._done = self._done, done
        return before

    def alone_ns(self, path: Path, size: int) -> int:
        """Return how long the links of a path take for ``size`` bytes if nothing else moves over them."""
        stream = self._known.get(path.links) or self._open(path.links, None)
        stream.rate, stream.received, stream.as_of_ns = stream.least, 0, 0
        stream.waiting.append((size << _BYTE, 0))
        end = stream.next_end()
        stream.waiting.clear()
        return self._nearest_ns(end, 0)

    def count_alone(self, path: Path, size: int, took_ns: int, transfers: int, last_ns: int) -> None:
        """Count ``transfers`` of ``size`` bytes that moved alone and took ``took_ns`` each, the last until then."""
        stream = self._known[path.links]
        late_ns = max(0, took_ns - round(size / stream.most))
        for use in stream.uses:
            use.count_alone(transfers, size, took_ns, late_ns, last_ns)

    def close_known(self) -> None:
        """Note that all links used so far are used no more: ``was_known`` tells if one of them is used again."""
        self._count_passed()
        self._closed |= self._uses.keys()
        self._known.clear()

    @property
    def was_known(self) -> bool:
        """Whether transfers that were known before the run stand: no other one has touched their links or times."""
        return not self._touched_closed and not (self._closed and self._found_half)

    @property
    def is_idle(self) -> bool:
        """Whether no transfer is under way, not even one that waits for a link."""
        return not self._payload

    def next_ns(self) -> int:
        """Return when the next transfer ends or arrives."""
        if self._arriving and self._arriving[0][0] < self._next_ns:
            return self._arriving[0][0]
        return self._next_ns

    def next_end_ns(self) -> int:
        """Return when the next of the transfers ends that others can delay or hasten."""
        return self._next_ns

    def next_arrival_ns(self) -> int:
        """Return when the next transfer arrives whose end is known, unless another one joins it."""
        return self._arriving[0][0] if self._arriving else NEVER

    def fire(self, now_ns: int) -> int:
        """End the transfers that are due, and deliver those that have arrived."""
        if self._next_ns <= now_ns:
            self._end_due(now_ns)
        self.deliver(now_ns)
        return self.next_ns()

    def end_due(self, now_ns: int) -> int:
        """End the transfers that are due; return when the next ones end."""
        if self._next_ns <= now_ns:
            self._end_due(now_ns)
        return self._next_ns

    def deliver(self, now_ns: int) -> int:
        """Deliver the transfers that have arrived; return when the next ones do."""
        self._fired_ns = now_ns
        arriving, done = self._arriving, self._done
        while arriving and arriving[0][0] <= now_ns:
            done(heappop(arriving)[2], now_ns)
        return arriving[0][0] if arriving else NEVER

    def settle(self, now_ns: int) -> None:
        """Do nothing: transfers change only at the instants that ``next_ns`` returns."""

    def _end_due(self, now_ns: int) -> None:
        """End every transfer whose last byte is nearer to this nanosecond than to the next one."""
        ends, latest = self._ends, (now_ns << _NS) + _HALF_NS
        touched: dict[int, None] = {}
        while ends and ends[0][0] <= latest:
            end, _, stream = heappop(ends)
            if end != stream.end:
                continue
            stream.advance(now_ns)
            stream.end = -1  # another entry of this stream is outdated too
            # The spare unit is what rounding may add to one of several equal ends.
            nearest = stream.received + ((stream.rate * (_HALF_NS + 1)) >> _NS)
            waiting, first = stream.waiting, stream.waiting[0][0]
            last = first if first > nearest else nearest
            while waiting and waiting[0][0] <= last:
                self._end(heappop(waiting)[1], stream, now_ns)
            alone = stream.is_alone()
            if not alone:
                touched.update(dict.fromkeys(stream.links))
            if not waiting:
                self._close(stream, now_ns)
            elif alone:
                self._set_alone(stream)
        if touched:
            self._share(self._reached(touched), now_ns)
        else:
            self._find_next(now_ns)

    def _end(self, transfer: int, stream: Stream, now_ns: int) -> None:
        """A transfer's last byte is sent; it arrives after its latency."""
        payload, latency_ns, sent_ns, alone_ns = self._payload.pop(transfer)
        heappush(self._arriving, (now_ns + latency_ns, transfer, payload))
        took_ns = now_ns - sent_ns
        for use in stream.uses:
            use.until_ns = now_ns
            use.transfer_ns += took_ns
            if took_ns > alone_ns:
                use.delay_ns += took_ns - alone_ns

    def _set_alone(self, stream: Stream) -> None:
        """Set the rate of a stream that shares no link, as of which it is advanced; what ``_share`` does for one."""
        stream.rate = stream.least // len(stream.waiting)
        if not stream.rate and self._may_stall:
            stream.end = -1
            return
        end = stream.next_end()
        if end != stream.end:
            stream.end = end
            self._entries += 1
            heappush(self._ends, (end, self._entries, stream))

    def _share(self, streams: list[Stream], now_ns: int) -> None:
        """Set the rates of all streams that a change can reach; find the next end."""
        if len(streams) == 1:
            rates = [streams[0].least // len(streams[0].waiting)]
        elif not streams:
            rates = []
        else:
            paths = [stream.links for stream in streams]
            rates = max_min_rates(paths, [len(stream.waiting) for stream in streams], self._capacity)
        for stream, rate in zip(streams, rates, strict=True):
            if rate != stream.rate:
                stream.advance(now_ns)
                stream.rate = rate
            elif stream.as_of_ns != now_ns:
                continue  # nothing has changed for it
            if not rate and self._may_stall:
                stream.end = -1
                continue
            end = stream.next_end()
            if end != stream.end:
                stream.end = end
                self._entries += 1
                heappush(self._ends, (end, self._entries, stream))
        self._find_next(now_ns)

    def _find_next(self, now_ns: int) -> None:
        """Find the next end: at the nanosecond nearest to its last byte, counted from now."""
        ends = self._ends
        if len(ends) > 2 * self._streams + _SPARE_ENTRIES:
            ends = self._ends = [entry for entry in ends if entry[0] == entry[2].end]
            heapify(ends)
        while ends and ends[0][0] != ends[0][2].end:
            heappop(ends)
        if not ends:
            self._next_ns = NEVER
            return
        self._next_ns = self._nearest_ns(ends[0][0], now_ns)

    def _nearest_ns(self, end: int, now_ns: int) -> int:
        """Return the nanosecond nearest to an end, not before now; half of one goes to the even one, from now on."""
        left = end - (now_ns << _NS)
        whole, part = left >> _NS, left & _PART_NS
        if part == _HALF_NS:
            self._found_half = True
        if part > _HALF_NS or (part == _HALF_NS and whole & 1):
            whole += 1
        return now_ns + whole if whole > 0 else now_ns
