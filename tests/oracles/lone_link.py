"""The KV of many prompts on one link from one client to another: naive, in fractions, one instant at a time.

What is under way shares the link evenly; a transfer ends at the nanosecond nearest to its last byte, counted from
the last instant at which anything set out or ended. Its latency comes on top. At one instant transfers arrive in the
order in which they set out.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any


class LoneLink:
    """Transfers, numbered as they set out: their bytes left, or when they arrive."""

    def __init__(self, bytes_per_ns: int) -> None:
        self.bytes_per_ns = bytes_per_ns
        self._left: dict[int, Fraction] = {}
        self._what: dict[int, tuple[Any, int]] = {}  # what it is, and its latency
        self._arriving: list[tuple[int, int]] = []  # (at ns, transfer)
        self._now_ns = 0
        self._sent = 0

    def send(self, size: int, what: Any, now_ns: int, latency_ns: int) -> None:
        """Let ``size`` bytes set out; without any it takes its latency and no share of the link."""
        self._sent += 1
        self._what[self._sent] = (what, latency_ns)
        if not size:
            self._arriving.append((now_ns + latency_ns, self._sent))
            return
        self._move(now_ns)
        self._left[self._sent] = Fraction(size)

    def next_ns(self) -> int | None:
        """Return when the next transfer ends or arrives."""
        instants = [at for at, _ in self._arriving]
        if self._left:
            instants.append(self._end_ns())
        return min(instants, default=None)

    def run(self, now_ns: int) -> Iterator[Any]:
        """End what ends now, and yield what arrives; more may set out meanwhile."""
        while self._left and self._end_ns() == now_ns:
            self._move(now_ns)
            half_a_ns = self._rate() / 2
            for number in [number for number, left in self._left.items() if left <= half_a_ns]:
                del self._left[number]
                self._arriving.append((now_ns + self._what[number][1], number))
        while due := sorted(entry for entry in self._arriving if entry[0] <= now_ns):
            self._arriving.remove(due[0])
            yield self._what.pop(due[0][1])[0]

    def _end_ns(self) -> int:
        return self._now_ns + max(0, round(min(self._left.values()) / self._rate()))

    def _move(self, now_ns: int) -> None:
        for number in self._left:
            self._left[number] -= self._rate() * (now_ns - self._now_ns)
        self._now_ns = now_ns

    def _rate(self) -> Fraction:
        return Fraction(self.bytes_per_ns, len(self._left))
