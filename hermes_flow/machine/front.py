"""The way of arrivals to the coordinator, past a gateway, a timeout and sites where there are any."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from hermes_flow.machine.coordinator import Coordinator
from hermes_flow.machine.engine import Engine
from hermes_flow.machine.gateway import Gateway
from hermes_flow.machine.new_tries import NewTries
from hermes_flow.machine.patience import Patience
from hermes_flow.machine.site_front import SiteFront
from hermes_flow.program.admission import AdmissionPolicy
from hermes_flow.program.program import Program
from hermes_flow.program.resource import Resource


class Source(Protocol):
    """A source of requests that waits for their ends."""

    def finished(self, request: int, now_ns: int) -> None:
        """Note that a request has its answer."""

    def failed(self, request: int, now_ns: int) -> list[int]:
        """Note that a request has failed; return those that fail with it."""


class Front:
    """Lets requests ``arrive`` at the coordinator of a program, and hears of their ends."""

    def __init__(
        self, program: Program, coordinator: Coordinator, site_of: list[int], tries: NewTries | None
    ) -> None:
        """``site_of`` takes the site of each request as it sets out, where the program has sites.

        ``tries`` begins requests anew whose users try again.
        """
        self.tries = tries
        requests = program.requests
        self.patience: Patience | None = None
        self.gateways: list[Gateway] = []
        self.arrive: Callable[[int, int], None] = coordinator.arrive
        self._source: Source | None = None
        self._failed_later: dict[int, list[int]] = {}  # request whose user gave up → what fails with it
        self.late: set[int] = set()  # requests whose answers came too late for their users
        self.sites: SiteFront | None = None
        if program.admission is not None:
            places = 1 if program.sites is None else len(program.sites.names)
            self.gateways = _gateways(program, program.admission, coordinator, places)
            self.arrive = self.gateways[0].arrive
        if program.sites is not None:
            gateways, site = self.gateways, site_of
            start = (
                (lambda request, now_ns: gateways[site[request]].arrive(request, now_ns))
                if gateways
                else None
            )
            self.sites = SiteFront(program.sites, start or coordinator.arrive, site_of, tries)
            self.sites.leaves = self._leaves_site
            for gateway in gateways:
                gateway.send_back = self.sites.come_again
            self.arrive = self.sites.arrive
        if requests.timeout_ns is not None:
            self.patience = Patience(
                requests.timeout_ns,
                coordinator.failures.give_up,
                program.retries,
                tries,
                program.seed,
                self.sites,
            )
            self.patience.left = self._gave_up_for_now
            self.patience.gave_up = self._gave_up
            self.arrive = self.patience.arriving(self.arrive)
        coordinator.on_finish, coordinator.failures.on_fail = self._finished, self._failed

    def follow(self, source: Source) -> None:
        """Tell a source of the ends of requests."""
        self._source = source

    def rank(self, ranked: list[Resource], engine: Engine) -> None:
        """Add what fires by itself: retries, then those who give up, after all deliveries of an instant."""
        for resource in (*self.gateways, self.patience, self.sites):
            if resource is not None:
                resource.on_wake = partial(engine.wake, len(ranked))
                ranked.append(resource)

    def _gateway_of(self, request: int) -> Gateway | None:
        """Return the gateway to which a request came last; None where there is none, or it never came."""
        if not self.gateways:
            return None
        if self.sites is None:
            return self.gateways[0]
        site = self.sites.site[request]
        return self.gateways[site] if site >= 0 else None

    def _finished(self, request: int, now_ns: int) -> None:
        user_ns = now_ns
        if self.sites is not None:
            self.sites.left(request)
            user_ns += self.sites.back_ns[request]
        if self.patience is not None:
            if self.patience.in_time(request, user_ns):
                self.patience.finished(request)
            else:
                self.late.add(request)
        if self._source is not None and request not in self.late:
            self._source.finished(request, user_ns)
        gateway = self._gateway_of(request)
        if gateway is not None:
            gateway.left(request, now_ns)

    def _gave_up(self, request: int, now_ns: int) -> None:
        """A user gives up for good, and what comes after the request does so at once; its site hears of it later."""
        self._failed_later[request] = [] if self._source is None else self._source.failed(request, now_ns)

    def _gave_up_for_now(self, request: int, now_ns: int) -> None:
        self.late.discard(request)
        if self.sites is not None:
            self.sites.left(request)
        gateway = self._gateway_of(request)
        if gateway is not None:
            gateway.left(request, now_ns)
            gateway.come_again(request)

    def _leaves_site(self, request: int, now_ns: int) -> None:
        gateway = self._gateway_of(request)
        if gateway is not None:
            gateway.lose(request, now_ns)

    def _failed(self, request: int, now_ns: int) -> list[int]:
        user_ns = now_ns
        if self.sites is not None:
            self.sites.left(request)
            user_ns += self.sites.back_ns[request]
        later = self._failed_later.pop(request, None)
        if later is None:
            later = [] if self._source is None else self._source.failed(request, user_ns)
        gateway = self._gateway_of(request)
        if gateway is not None:
            gateway.left(request, now_ns)
        return later


def _gateways(
    program: Program, admission: AdmissionPolicy, coordinator: Coordinator, count: int
) -> list[Gateway]:
    """Return the gateway before the cluster, or those before the clients of each site."""
    requests = program.requests
    gateways = [
        Gateway(
            admission.limits,
            admission.start(requests),
            len(requests),
            program.seed,
            coordinator.arrive,
            coordinator.failures.give_up,
        )
        for _ in range(count)
    ]
    for other in gateways[1:]:
        other.join(gateways[0])
    return gateways
