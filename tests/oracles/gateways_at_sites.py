"""The naive reference of sites with a host and a gateway each, and of users far away: it looks at every instant.

At an instant requests set out first. Then tasks end, site by site, and each end lets others in. Then users come
again, users give up, sites hear of those who gave up, and last requests come to their sites or set out anew.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class NaiveSite:
    """A site: its gateway lets ``inside`` requests to a host with ``cores``, and ``queued`` (None: all) wait."""

    cores: int
    inside: int
    queued: int | None
    holds: bool
    queue: list[int] = field(default_factory=list)
    outside: list[int] = field(default_factory=list)
    admitted: set[int] = field(default_factory=set)
    at_host: list[int] = field(default_factory=list)
    running: dict[tuple[int, int], int] = field(default_factory=dict)  # (request, its run) → end
    in_hand: set[int] = field(default_factory=set)


@dataclass
class NaiveSites:
    """The requests of users at sites, and what becomes of them; −1 for never.

    A request that was turned away comes again ``times`` times, one on which its user gave up ``user_times`` times.
    """

    sites: list[NaiveSite]
    user: list[int]
    arrivals: list[int]
    service: list[int]
    timeouts: list[int]
    way: list[list[int]]  # from a user at a site to another site
    home: list[list[int]]  # from a site to a user at another one
    prompt: list[list[int]]  # what a prompt takes besides
    times: int
    backoff: int
    user_times: int
    user_backoff: int

    def __post_init__(self) -> None:
        count = len(self.user)
        self.now = 0
        self.site = [-1] * count
        self.status = [""] * count
        self.finish, self.admitted = [-1] * count, [-1] * count
        self.tries, self.before, self.given_up = [0] * count, [0] * count, [0] * count
        self.until: dict[int, int] = {}
        self.dead: set[int] = set()
        self.begun = [0] * count
        self.answered: set[int] = set()
        self.comes: list[tuple[int, int]] = []
        self.sets_out: list[tuple[int, int]] = []
        self.told: list[tuple[int, int]] = []
        self.again: list[tuple[int, int]] = []

    def run(self) -> None:
        while not all(self.status):
            for request, at in enumerate(self.arrivals):
                if at == self.now:
                    self.begin(request)
            for site in self.sites:
                self.end_tasks(site)
            self.hear_users_come()
            for request, until in sorted(self.until.items()):
                if until == self.now and not self.status[request] and request not in self.answered:
                    self.given_up[request] += 1
                    self.dead.add(request)
                    self.told.append((self.now + self.out(request), request))
            for at, request in sorted(self.told):
                if at <= self.now:
                    self.told.remove((at, request))
                    self.hear(request)
            self.hear_users_come()
            due = [(at, request, True) for at, request in self.comes if at == self.now]
            due += [(at, request, False) for at, request in self.sets_out if at == self.now]
            for entry in sorted(due):
                if entry[2] and entry[:2] in self.comes:
                    self.comes.remove(entry[:2])
                    self.come(entry[1])
                elif not entry[2] and entry[:2] in self.sets_out:
                    self.sets_out.remove(entry[:2])
                    if entry[1] not in self.dead:
                        self.set_out(entry[1])
            self.now += 1

    def hear_users_come(self) -> None:
        for at, request in sorted(self.again):
            if at <= self.now:
                self.again.remove((at, request))
                self.begin(request)

    def out(self, request: int) -> int:
        return self.way[self.user[request]][self.site[request]]

    def back(self, request: int) -> int:
        return self.home[self.site[request]][self.user[request]]

    def begin(self, request: int) -> None:
        self.dead.discard(request)
        if self.timeouts[request] >= 0:
            self.until[request] = self.now + self.timeouts[request]
        self.set_out(request)

    def set_out(self, request: int) -> None:
        user = self.user[request]

        def key(site: int) -> tuple[int, int]:
            trip = self.way[user][site] + self.prompt[user][site] + self.home[site][user]
            return len(self.sites[site].in_hand), trip

        self.site[request] = min(range(len(self.sites)), key=key)
        self.sites[self.site[request]].in_hand.add(request)
        self.comes.append((self.now + self.out(request) + self.prompt[user][self.site[request]], request))

    def come(self, request: int) -> None:
        site = self.sites[self.site[request]]
        self.tries[request] += 1
        if site.queued is None or len(site.queue) < site.queued or self.has_room(site):
            site.queue.append(request)
            self.let_in(site)
        elif site.holds:
            site.outside.append(request)
        elif self.tries[request] - self.before[request] > self.times:
            self.status[request] = "rejected"
            site.in_hand.discard(request)
        else:
            site.in_hand.discard(request)
            wait = self.backoff * 2 ** (self.tries[request] - self.before[request] - 1)
            self.sets_out.append((self.now + self.back(request) + wait, request))

    def has_room(self, site: NaiveSite) -> bool:
        return not site.queue and len(site.admitted) < site.inside

    def let_in(self, site: NaiveSite) -> None:
        while True:
            room = len(site.admitted) < site.inside
            while site.outside and (
                site.queued is None or len(site.queue) < site.queued or (room and not site.queue)
            ):
                site.queue.append(site.outside.pop(0))
            if not room or not site.queue:
                return
            request = site.queue.pop(0)
            site.admitted.add(request)
            self.admitted[request] = self.now
            site.at_host.append(request)
            self.take_cores(site)

    def take_cores(self, site: NaiveSite) -> None:
        while site.at_host and len(site.running) < site.cores:
            request = site.at_host.pop(0)
            self.begun[request] += 1
            site.running[request, self.begun[request]] = self.now + self.service[request]

    def end_tasks(self, site: NaiveSite) -> None:
        for request, number in [one for one, end in site.running.items() if end == self.now]:
            del site.running[request, number]
            self.take_cores(site)
            if request in site.admitted and number == self.begun[request] and request not in site.at_host:
                site.admitted.discard(request)
                site.in_hand.discard(request)
                if self.now + self.back(request) <= self.until.get(request, 10**9):
                    self.status[request] = "completed"
                    self.finish[request] = self.now + self.back(request)
                    self.answered.add(request)
                self.let_in(site)

    def hear(self, request: int) -> None:
        """A site hears that the user of a request has given up."""
        if self.status[request]:
            return
        site = self.sites[self.site[request]]
        site.queue[:] = [one for one in site.queue if one != request]
        site.outside[:] = [one for one in site.outside if one != request]
        site.at_host[:] = [one for one in site.at_host if one != request]
        self.comes[:] = [entry for entry in self.comes if entry[1] != request]
        self.sets_out[:] = [entry for entry in self.sets_out if entry[1] != request]
        site.in_hand.discard(request)
        if self.given_up[request] > self.user_times:
            self.status[request] = "timed_out"
        else:
            wait = self.user_backoff * 2 ** (self.given_up[request] - 1)
            self.again.append((max(self.until[request] + wait, self.now), request))
            self.before[request] = self.tries[request]
        site.admitted.discard(request)
        self.let_in(site)
