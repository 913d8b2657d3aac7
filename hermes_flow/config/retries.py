"""The keys of users that try again after they gave up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hermes_flow.config.quantities import Factor, Seconds, ShareBelowOne, Turns
from hermes_flow.program.quick_dataclass import dataclass

if TYPE_CHECKING:
    from hermes_flow.program.admission import RetryRule


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a user who gave up on a request sends it again, and after which time."""

    times: Turns
    """The most times that it is sent again."""
    backoff_s: Seconds
    """The time from giving up until it is sent again for the first time."""
    factor: Factor = 2.0
    """Each further wait is so many times the one before it."""
    jitter: ShareBelowOne = 0.0
    """Each wait is drawn evenly from this share below to this share above it."""

    @property
    def rule(self) -> RetryRule:
        """The rule, with times in nanoseconds."""
        from hermes_flow.program.admission import RetryRule  # it needs NumPy, which composing does not
        from hermes_flow.program.units import NS_PER_S

        return RetryRule(self.times, round(self.backoff_s * NS_PER_S), self.factor, self.jitter)
