"""The naive reference of sites whose clients come and go: requests travel to one, and leave it when it has failed.

A request goes to the nearest site that is open. When its site is not open any more, and another one is, it is sent
anew as soon as its user knows.
"""

from __future__ import annotations

from oracles.scaled_fleet import ScaledFleet


class SitesOfFleets:
    """Runs tasks of users at sites; ``ways[user][site]`` and ``backs[site][user]`` are the times between them."""

    def __init__(
        self,
        fleets: list[ScaledFleet],
        users: list[int],
        arrivals: list[int],
        ways: list[list[int]],
        backs: list[list[int]],
    ) -> None:
        self.fleets = fleets
        self.users = users
        self.arrivals = arrivals
        self.ways = ways
        self.backs = backs
        self.site_of = [-1] * len(users)
        self.moved: list[int] = []
        self.coming: list[tuple[int, int, bool]] = []  # (instant, task, whether it comes or sets out)
        self.now = 0
        for site, fleet in enumerate(fleets):
            fleet.elsewhere = lambda task, site=site: self.leaves(task, site)  # type: ignore[misc]
            fleet.changed = self.changed

    def open(self) -> list[int]:
        return [site for site, fleet in enumerate(self.fleets) if fleet.is_open()]

    def set_out(self, task: int) -> None:
        among = self.open() or range(len(self.fleets))
        user = self.users[task]
        site = min(among, key=lambda site: self.ways[user][site] + self.backs[site][user])
        self.site_of[task] = site
        self.coming.append((self.now + self.ways[user][site], task, True))

    def leaves(self, task: int, site: int) -> bool:
        if not self.open() or site in self.open():
            return False
        self.moved.append(task)
        self.coming.append((self.now + self.backs[site][self.users[task]], task, False))
        return True

    def changed(self) -> None:
        for site, fleet in enumerate(self.fleets):
            fleet.held = [task for task in fleet.held if not self.leaves(task, site)]

    def run(self) -> None:
        arriving = list(range(len(self.arrivals)))
        last = False
        while not last:
            instants = [self.arrivals[task] for task in arriving[:1]] + [at for at, _, _ in self.coming]
            self.now = min([*instants, *(at for fleet in self.fleets for at in fleet.instants())])
            due = [self.now in fleet.instants() for fleet in self.fleets]
            for fleet in self.fleets:
                fleet.now = self.now
            while arriving and self.arrivals[arriving[0]] == self.now:
                self.set_out(arriving.pop(0))
            for entry in sorted(entry for entry in self.coming if entry[0] == self.now):
                self.coming.remove(entry)
                if entry[2]:
                    self.fleets[self.site_of[entry[1]]].receive(entry[1])
                else:
                    self.set_out(entry[1])
            over = not arriving and not self.coming and all(fleet.is_idle() for fleet in self.fleets)
            last = over and all(fleet.next_tick == self.now for fleet in self.fleets)
            for fleet, fires in zip(self.fleets, due, strict=True):
                if fires:
                    fleet.step(over)
        for fleet in self.fleets:
            fleet.end()
