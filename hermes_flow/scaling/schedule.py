"""The scaling policy ``schedule`` sets the number of clients by the time of day."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from typing import ClassVar

from hermes_flow.config.convert import child
from hermes_flow.config.quantities import CountOrZero, HourOfDay
from hermes_flow.errors import ConfigError
from hermes_flow.program.fleet import ScaledPool, Wanted
from hermes_flow.program.units import NS_PER_S
from hermes_flow.scaling.policy import scaling_policies

_DAY_S = 86_400


@scaling_policies.register("schedule")
@dataclass(frozen=True, slots=True)
class Schedule:
    """Wants the number of clients that ``at`` gives for the last time of day that has passed.

    ``at`` maps times of day to numbers of clients: hours (7.5), or text ("07:30", with quotes in YAML). Before the
    first time of a day the last one of the day before holds. The run begins at the time of day ``begins``.
    Clients are up a start-up time later, so a schedule names times before the load comes.
    """

    at: dict[str | HourOfDay, CountOrZero]
    begins: str | HourOfDay = "00:00"
    oracle: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not self.at:
            raise ConfigError("at", "empty; expected times of day and clients, as in {8: 4, 20: 1}")
        for time in self.at:
            _seconds(time, child("at", time))
        _seconds(self.begins, "begins")

    def start(self, pool: ScaledPool) -> Wanted:
        """Return the function that reads the schedule."""
        entries = sorted((_seconds(time, "at"), clients) for time, clients in self.at.items())
        times, numbers = [time for time, _ in entries], [clients for _, clients in entries]
        begins_s = _seconds(self.begins, "begins")

        def wanted(now_ns: int) -> int:
            time_s = (now_ns // NS_PER_S + begins_s) % _DAY_S
            return numbers[bisect_right(times, time_s) - 1]

        return wanted


def _seconds(time: str | float, key: str) -> int:
    """Return the seconds after midnight of a time of day."""
    if not isinstance(time, str):
        if 0 <= time < 24:
            return round(3600 * time)
        raise ConfigError(
            key, f'{time:g} is no hour of a day; expected a number below 24, or text, as "07:30"'
        )
    found = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)", time)
    if found is None:
        raise ConfigError(
            key, f'{time!r} is no time of day; expected hours, or hours and minutes, as "07:30"'
        )
    return 3600 * int(found[1]) + 60 * int(found[2])
