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
        self.gateway: Gateway | None = None
        self.arrive: Callable[[int, int], None] = coordinator.arrive
        self._source: Source | None = None
        self.sites: SiteFront | None = None
        if program.sites is not None:
            self.sites = SiteFront(program.sites, coordinator.arrive, site_of, tries)
            self.arrive = self.sites.arrive
        if program.admission is not None:
            self.gateway = Gateway(
                program.admission.limits,
                program.admission.start(requests),
                len(requests),
                program.seed,
                coordinator.arrive,
                coordinator.give_up,
            )
            self.arrive = self.gateway.arrive
        if requests.timeout_ns is not None:
            self.patience = Patience(
                requests.timeout_ns, coordinator.give_up, program.retries, tries, program.seed
            )
            self.patience.left = self._gave_up_for_now
            self.arrive = self.patience.arriving(self.arrive)
        coordinator.on_finish, coordinator.on_fail = self._finished, self._failed

    def follow(self, source: Source) -> None:
        """Tell a source of the ends of requests."""
        self._source = source

    def rank(self, ranked: list[Resource], engine: Engine) -> None:
        """Add what fires by itself: retries, then those who give up, after all deliveries of an instant."""
        for resource in (self.gateway, self.patience, self.sites):
            if resource is not None:
                resource.on_wake = partial(engine.wake, len(ranked))
                ranked.append(resource)

    def _finished(self, request: int, now_ns: int) -> None:
        if self.patience is not None:
            self.patience.finished(request)
        back_ns = 0
        if self.sites is not None:
            self.sites.left(request)
            back_ns = self.sites.back_ns[request]
        if self._source is not None:
            self._source.finished(request, now_ns + back_ns)
        if self.gateway is not None:
            self.gateway.left(request, now_ns)

    def _gave_up_for_now(self, request: int, now_ns: int) -> None:
        if self.gateway is not None:
            self.gateway.left(request, now_ns)
            self.gateway.come_again(request)

    def _failed(self, request: int, now_ns: int) -> list[int]:
        if self.sites is not None:
            self.sites.left(request)
        later = [] if self._source is None else self._source.failed(request, now_ns)
        if self.gateway is not None:
            self.gateway.left(request, now_ns)
        return later
