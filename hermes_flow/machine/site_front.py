"""Sends each request to a site: it chooses one, and lets the request begin there when it has come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import TYPE_CHECKING, ClassVar

from hermes_flow.errors import InternalError
from hermes_flow.program.sites import Sites
from hermes_flow.program.units import NEVER

if TYPE_CHECKING:
    from hermes_flow.machine.new_tries import NewTries

_COMES, _SETS_OUT = range(2)  # what becomes of a request at an instant


class SiteFront:
    """A resource that fires as requests come to their sites, and as they set out anew.

    ``start(request, now_ns)`` begins one there. ``site`` is that of each request, −1 where it has not set out;
    ``out_ns`` and ``back_ns`` are its ways. ``before_ns`` is the time from its arrival until it set out last, and
    ``earlier_usd`` the price of its ways before that; ``moved`` counts, by request, the sites that it had to leave.
    It is what site policies read (``SiteView``). ``tries`` is given where requests may begin anew.
    """

    fixed: ClassVar[bool] = True

    def __init__(
        self, sites: Sites, start: Callable[[int, int], None], site_of: list[int], tries: NewTries | None
    ) -> None:
        count = len(sites.user)
        self._sites = sites
        self._start = start
        self._tries = tries
        self._due: list[tuple[int, int, int, int]] = []  # heap of (instant, request, trip, what)
        self._trip: dict[int, int] = {}  # request → its trip: entries of earlier ones are passed over
        self._leaving: dict[int, None] = {}  # requests that leave their site at this instant
        self._leaving_ns = NEVER
        self._began_ns: dict[int, int] = {}  # request → when it set out for the first time
        self._clients: Sequence[int] = sites.llm_clients
        self._in_hand = [0] * len(sites.names)
        self._counts = bytearray(count)  # whether a request is in hand at its site
        self.find_open: Callable[[], Sequence[int]] = lambda: sites.open
        self.round_trip_s = sites.round_trip_s
        self.prompt_usd = sites.prompt_usd
        self.site = site_of
        self.out_ns = [0] * count
        self.back_ns = [0] * count
        self.before_ns: dict[int, int] = {}
        self.earlier_usd: dict[int, float] = {}
        self.moved: dict[int, int] = {}
        self.given_up: set[int] = (
            set()
        )  # requests whose users wait no more, which their sites may not know yet
        self.leaves: Callable[[int, int], None] = lambda request, now_ns: None  # as one leaves its site
        self.on_wake: Callable[[int], None] = lambda at_ns: None
        self._choose = sites.policy.start(self)

    def per_client(self, site: int) -> float:
        """Return the requests that were sent to a site and are not over, per LLM client there, of at least one."""
        return self._in_hand[site] / max(1, self._clients[site])

    @property
    def open(self) -> Sequence[int]:
        """The sites that serve requests now, or all that have clients where none does."""
        return self.find_open()

    def share_among(self, clients: Sequence[int]) -> None:
        """Share load among so many clients at each site from now on."""
        self._clients = clients

    def arrive(self, request: int, now_ns: int) -> None:
        """Send a request on its way."""
        if self.site[request] >= 0:
            self._note_earlier(request, now_ns)
        else:
            self._began_ns[request] = now_ns
        site = self._choose(request, now_ns)
        self.site[request] = site
        self.out_ns[request] = out = self._sites.out_ns(request, site)
        self.back_ns[request] = self._sites.back_ns(request, site)
        self._in_hand[site] += 1
        self._counts[request] = 1
        self._await(now_ns + out, request, _COMES)

    def left(self, request: int) -> None:
        """Note that a request is over at its site, or will not come there; one that never set out is at none."""
        if self._counts[request]:
            self._counts[request] = 0
            self._in_hand[self.site[request]] -= 1
        if self._trip:
            self._trip[request] = self._trip.get(request, 0) + 1

    def move(self, request: int, now_ns: int) -> None:
        """Let a request leave a site that does not serve it any more; its user sends it anew on hearing of it."""
        self._leaving[request] = None
        self._leaving_ns = now_ns
        self.on_wake(now_ns)

    def come_again(self, request: int, wait_ns: int, now_ns: int) -> None:
        """Let a request that was turned away at its site set out anew, so long after its user has heard of it."""
        self.left(request)
        self._await(now_ns + self.back_ns[request] + wait_ns, request, _SETS_OUT)

    def cancel_ns(self, request: int) -> int:
        """Return the time until the site of a request knows that its user has given up."""
        site = self.site[request]
        return self._sites.way_ns(request, site) if site >= 0 else 0

    def next_ns(self) -> int:
        """Return when the next request comes to its site, or sets out anew."""
        at = self._due[0][0] if self._due else NEVER
        return self._leaving_ns if self._leaving_ns < at else at

    def fire(self, now_ns: int) -> int:
        """Let requests leave that must, and begin those that are there."""
        if self._leaving_ns <= now_ns:
            self._send_away(now_ns)
        due = self._due
        while due and due[0][0] <= now_ns:
            _, request, trip, what = heappop(due)
            if self._trip.get(request, 0) != trip:
                continue
            if what == _COMES:
                self._start(request, now_ns)
            else:
                self._set_out(request, now_ns)
        return self.next_ns()

    def settle(self, now_ns: int) -> None:
        """Do nothing: nothing changes between the instants that ``next_ns`` returns."""

    def _await(self, at_ns: int, request: int, what: int) -> None:
        heappush(self._due, (at_ns, request, self._trip.setdefault(request, 0), what))
        self.on_wake(self._due[0][0])

    def _send_away(self, now_ns: int) -> None:
        """Take requests back from their sites; each sets out anew when its user knows."""
        leaving, self._leaving, self._leaving_ns = self._leaving, {}, NEVER
        tries = self._tries
        assert tries is not None, "requests leave sites only where they may begin anew"
        for request in leaving:
            if not self._counts[request]:
                continue  # it is over
            tries.take_back(request, now_ns)
            self.leaves(request, now_ns)
            self.left(request)
            self.moved[request] = self.moved.get(request, 0) + 1
            self._await(now_ns + self.back_ns[request], request, _SETS_OUT)

    def _set_out(self, request: int, now_ns: int) -> None:
        """Send a request anew, as soon as no client has work left of it."""
        if request in self.given_up:
            return
        tries = self._tries
        if tries is not None and tries.was_taken_back(request):
            free_ns = tries.free_ns(request, now_ns)
            if free_ns >= NEVER:
                raise InternalError(f"a client keeps work of request {request}, which was taken back")
            if free_ns > now_ns:
                self._await(free_ns, request, _SETS_OUT)
                return
            tries.begin_anew(request)
        self.arrive(request, now_ns)

    def _note_earlier(self, request: int, now_ns: int) -> None:
        """Note the time and the price of the ways of a request before the one that begins."""
        self.before_ns[request] = now_ns - self._began_ns[request]
        usd = self._sites.prompt_usd(request, self.site[request])
        self.earlier_usd[request] = self.earlier_usd.get(request, 0.0) + usd
