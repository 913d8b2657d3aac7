"""The KV of many prompts on one link from one client to another: naive, in fractions, one instant at a time.

What is under way shares the link evenly; a transfer ends at the nanosecond nearest to its last byte, counted from
the last instant at which anything set out or ended. At one instant first layers come before prefills that are over,
and these before transfers that end, in the order in which they set out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction


@dataclass(frozen=True)
class Departure:
    """A prompt's KV: ``early`` bytes set out at ``first_layer_ns`` (None: all waits until the prefill is over).

    The ``rest`` sets out at ``over_ns``, or when the early bytes are gone if that is later.
    """

    request: int
    over_ns: int
    rest: int
    first_layer_ns: int | None = None
    early: int = 0


@dataclass
class _LoneLink:
    """What is under way: transfers, numbered as they set out, and their bytes left."""

    bytes_per_ns: int
    left: dict[int, Fraction] = field(default_factory=dict)
    now_ns: int = 0
    sent: int = 0

    def send(self, size: int, now_ns: int) -> int:
        self._move(now_ns)
        self.sent += 1
        self.left[self.sent] = Fraction(size)
        return self.sent

    def next_end_ns(self) -> int | None:
        if not self.left:
            return None
        return self.now_ns + max(0, round(min(self.left.values()) / self._rate()))

    def end(self, now_ns: int) -> list[int]:
        """Return what ends now, and let it leave the link."""
        if self.next_end_ns() != now_ns:
            return []
        self._move(now_ns)
        half_a_ns = self._rate() / 2
        ended = [number for number, left in self.left.items() if left <= half_a_ns]
        for number in ended:
            del self.left[number]
        return ended

    def _move(self, now_ns: int) -> None:
        for number in self.left:
            self.left[number] -= self._rate() * (now_ns - self.now_ns)
        self.now_ns = now_ns

    def _rate(self) -> Fraction:
        return Fraction(self.bytes_per_ns, len(self.left))


def simulate_lone_link(
    begun: Sequence[Departure], over: Sequence[Departure], bytes_per_ns: int, latency_ns: int
) -> list[tuple[int, int]]:
    """Return (when all of its KV is there, request) in order of arrival; a latency comes on top of each rest.

    ``begun`` are the departures that have early bytes to send, in the order in which their first layers are
    computed, ``over`` all of them in the order in which their prefills are over.
    """
    beginning, ending = list(begun), list(over)
    waiting = {departure.request for departure in begun}  # whose early bytes are not gone yet
    rests_wait: dict[int, Departure] = {}
    link = _LoneLink(bytes_per_ns)
    under_way: dict[int, tuple[Departure, bool]] = {}  # transfer → whose, and whether it is the rest
    arriving: list[tuple[int, int, int, int]] = []
    rounds = 0
    while len(arriving) < len(over):
        rounds += 1
        instants = [departure.over_ns for departure in ending[:1]]
        instants += [departure.first_layer_ns or 0 for departure in beginning[:1]]
        instants += [at for at in [link.next_end_ns()] if at is not None]
        now = min(instants)
        gone: list[tuple[int, Departure, bool]] = []
        while beginning and beginning[0].first_layer_ns == now:
            departure = beginning.pop(0)
            if departure.early:
                under_way[link.send(departure.early, now)] = (departure, False)
            else:
                gone.append((link.sent, departure, False))
        while ending and ending[0].over_ns == now:
            departure = ending.pop(0)
            if departure.request in waiting:
                rests_wait[departure.request] = departure
            elif not departure.rest:  # without bytes it takes no share of the link
                link.sent += 1
                gone.append((link.sent, departure, True))
            else:
                under_way[link.send(departure.rest, now)] = (departure, True)
        gone += [(number, *under_way.pop(number)) for number in link.end(now)]
        for number, departure, is_rest in sorted(gone, key=lambda entry: entry[0]):
            if is_rest:
                # Without a latency what ends is there, before what only then ends at the same instant.
                arriving.append((now + latency_ns, 0 if latency_ns else rounds, number, departure.request))
                continue
            waiting.remove(departure.request)
            if departure.request in rests_wait and not departure.rest:
                link.sent += 1
                arriving.append((now + latency_ns, 0 if latency_ns else rounds, link.sent, departure.request))
            elif departure.request in rests_wait:
                under_way[link.send(departure.rest, now)] = (departure, True)
    return [(at, request) for at, _, _, request in sorted(arriving)]
