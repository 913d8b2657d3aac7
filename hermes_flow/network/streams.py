"""The transfers under way over the same links, and the totals of one link."""

from __future__ import annotations

from hermes_flow.program.units import NEVER

BYTE_BITS = 80  # a byte is 2^80 units of what a transfer receives
NS_BITS = 20  # ends are rounded to 2^-20 ns, so that equal transfers end together
_BYTE = BYTE_BITS
_HALF_NS = 1 << (NS_BITS - 1)
_PART_NS = (1 << NS_BITS) - 1


class Stream:
    """The transfers under way over the same links.

    ``received`` is what each transfer that is there since the beginning has received until ``as_of_ns``; a transfer
    ends as this reaches its entry in ``waiting`` (received at its end, transfer). ``end`` is when the first of them
    ends, in 2^-20 ns. ``least`` is the capacity of its narrowest link, ``most`` the same in bytes a ns.
    ``alone_ns`` is what a transfer of ``alone_size`` bytes takes where nobody else moves, 0 where only the others can
    tell; it is ``alone_late_ns`` longer than its bytes need. ``passed`` such transfers, the last of which ended at
    ``passed_until_ns``, are not in the totals of the links yet (``count_passed``).
    """

    __slots__ = (
        "alone_late_ns",
        "alone_least",
        "alone_ns",
        "alone_size",
        "as_of_ns",
        "end",
        "least",
        "links",
        "most",
        "passed",
        "passed_until_ns",
        "rate",
        "received",
        "uses",
        "waiting",
    )

    def __init__(self, links: tuple[int, ...], uses: list[LinkUse], least: int, most: float) -> None:
        self.links = links
        self.uses = uses
        self.least = least
        self.most = most
        self.rate = 0
        self.received = 0
        self.as_of_ns = 0
        self.waiting: list[tuple[int, int]] = []
        self.end = -1
        self.alone_size = -1
        self.alone_least = -1
        self.alone_ns = 0
        self.alone_late_ns = 0
        self.passed = 0
        self.passed_until_ns = 0

    def note_alone(self, size: int) -> None:
        """Find how long a transfer of ``size`` bytes takes alone; others often have as many."""
        self.count_passed()
        self.alone_size, self.alone_least, self.alone_ns = size, self.least, 0
        if not self.least:
            return
        length = ((((size << _BYTE) << (NS_BITS + 1)) // self.least) + 1) >> 1
        whole, part = length >> NS_BITS, length & _PART_NS
        if part == _HALF_NS:
            return  # what else happens may decide on the half
        self.alone_ns = whole + 1 if part > _HALF_NS else whole
        self.alone_late_ns = max(0, self.alone_ns - round(size / self.most))

    def count_passed(self) -> None:
        """Count the transfers that have passed alone in the totals of the links."""
        if self.passed:
            for use in self.uses:
                use.count_alone(
                    self.passed, self.alone_size, self.alone_ns, self.alone_late_ns, self.passed_until_ns
                )
            self.passed = 0

    def begin(self, now_ns: int) -> bool:
        """Take the links of the first transfer; return whether no other stream shares any of them."""
        self.rate = self.received = 0
        self.as_of_ns = now_ns
        alone = True
        for use in self.uses:
            if use.streams:
                alone = False
            else:
                use.since_ns = now_ns
            use.streams[self.links] = self
        return alone

    def is_alone(self) -> bool:
        """Return whether no other stream shares any of its links, as is most often so."""
        for use in self.uses:  # noqa: SIM110 – a loop is faster than all() for so few
            if len(use.streams) > 1:
                return False
        return True

    def advance(self, now_ns: int) -> None:
        """Move bytes up to now."""
        self.received += self.rate * (now_ns - self.as_of_ns)
        self.as_of_ns = now_ns

    def next_end(self) -> int:
        """Return when the first transfer ends at the present rate, in 2^-20 ns. Raises OverflowError."""
        if not self.rate:
            raise OverflowError("a transfer never ends")
        missing = self.waiting[0][0] - self.received
        end = (self.as_of_ns << NS_BITS) + ((((missing << (NS_BITS + 1)) // self.rate) + 1) >> 1)
        if end >= NEVER << NS_BITS:
            raise OverflowError("a transfer ends after the end of the clock")
        return end


class LinkUse:
    """Totals of one link, and which streams use it now."""

    __slots__ = (
        "busy_ns",
        "bytes",
        "delay_ns",
        "lone",
        "since_ns",
        "streams",
        "transfer_ns",
        "transfers",
        "until_ns",
    )

    def __init__(self) -> None:
        self.busy_ns = 0
        self.transfers = 0
        self.bytes = 0
        self.transfer_ns = 0
        self.delay_ns = 0
        self.until_ns = 0
        self.since_ns = 0
        self.streams: dict[tuple[int, ...], Stream] = {}
        self.lone: Lone | None = None  # the last transfer that found the link idle; it may be over

    def count_alone(self, transfers: int, size: int, took_ns: int, late_ns: int, last_ns: int) -> None:
        """Count transfers of ``size`` bytes each that met nobody, the last until ``last_ns``."""
        self.transfers += transfers
        self.bytes += size * transfers
        self.busy_ns += took_ns * transfers
        self.transfer_ns += took_ns * transfers
        self.delay_ns += late_ns * transfers
        self.until_ns = max(self.until_ns, last_ns)

    def count_lone(self, lone: Lone, by: int) -> None:
        """Count a lone transfer to its end, or with ``by`` −1 no longer."""
        took_ns = lone.entry[0] - lone.since_ns
        self.transfers += by
        self.bytes += by * lone.size
        self.busy_ns += by * took_ns
        self.transfer_ns += by * took_ns
        self.delay_ns += by * lone.late_ns
        self.until_ns = lone.entry[0]


class Lone:
    """A transfer of ``size`` bytes over links that were idle at ``since_ns``, with ``entry`` (end, number, payload).

    ``late_ns`` is by how much longer it takes than its bytes need at the rate of its narrowest link.
    """

    __slots__ = ("entry", "late_ns", "since_ns", "size", "stream")

    def __init__(
        self, stream: Stream, entry: tuple[int, int, int], size: int, since_ns: int, late_ns: int
    ) -> None:
        self.stream = stream
        self.entry = entry
        self.size = size
        self.since_ns = since_ns
        self.late_ns = late_ns
